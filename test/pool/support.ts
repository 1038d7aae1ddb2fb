import { onTestFinished } from 'vitest'
import type { GenericPoolOptions } from '../../src/options.ts'
import { Pool } from '../../src/pool.ts'
import { FakeClock, FakeDriver } from '../../src/testing/index.ts'
import type { FakeConnection } from '../../src/testing/index.ts'
import type { Slot } from '../../src/slot.ts'
import { Waiter } from '../../src/waiters.ts'

export interface Rig {
  readonly pool: Pool<FakeConnection>
  readonly driver: FakeDriver
  readonly clock: FakeClock
}

/** A pool over a fake driver and a clock that stands still. */
export function rig(options: Partial<GenericPoolOptions<FakeConnection>> = {}, driver = new FakeDriver()): Rig {
  const clock = new FakeClock()
  const pool = new Pool({ driver, clock, name: 'p', ...options })
  return { pool, driver, clock }
}

/** Fails the test if a promise rejects without anybody listening. */
export function watchRejections(): unknown[] {
  const seen: unknown[] = []
  const listener = (reason: unknown): void => void seen.push(reason)
  process.on('unhandledRejection', listener)
  onTestFinished(() => void process.off('unhandledRejection', listener))
  return seen
}

/** What has become of a promise, without waiting for it. */
export function watch<T>(promise: Promise<T>): {
  state: 'pending' | 'resolved' | 'rejected'
  value?: T
  error?: unknown
} {
  const seen: { state: 'pending' | 'resolved' | 'rejected'; value?: T; error?: unknown } = { state: 'pending' }
  promise.then(
    (value) => Object.assign(seen, { state: 'resolved', value }),
    (error: unknown) => Object.assign(seen, { state: 'rejected', error }),
  )
  return seen
}

/** Whoever asks the core without a pool around it. */
export class Silent<C> extends Waiter<Slot<C>> {
  serve(): void {}
  fail(): void {}
  expire(): void {}
}
