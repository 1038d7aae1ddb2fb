/**
 * What millpond's own tests use, for tests of pools and drivers of yours; and contexts to call tasks and servers with.
 *
 * @module
 */
export { FakeClock, settled } from './clock.ts'
export { testContext } from './context.ts'
export type { TestContext, TestContextOptions } from './context.ts'
export { driverContract } from './contract.ts'
export type { DriverClause, DriverContractOptions } from './contract.ts'
export { FakeConnection, FakeDriver } from './driver.ts'
export type { Behaviour, FakeCall, RecordedCall } from './driver.ts'
