/**
 * What millpond's own tests use, for tests of pools and drivers of yours.
 *
 * @module
 */
export { FakeClock, settled } from './clock.ts'
export { FakeConnection, FakeDriver } from './driver.ts'
export type { Behaviour } from './driver.ts'
