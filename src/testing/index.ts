/**
 * What millpond's own tests use, for tests of pools and drivers of yours.
 *
 * @module
 */
export { FakeClock, settled } from './clock.ts'
export { driverContract } from './contract.ts'
export type { DriverClause, DriverContractOptions } from './contract.ts'
export { FakeConnection, FakeDriver } from './driver.ts'
export type { Behaviour, FakeCall, RecordedCall } from './driver.ts'
