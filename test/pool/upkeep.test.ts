import { describe, expect, test } from 'vitest'
import type { Clock, Timer } from '../../src/clock.ts'
import { Pool } from '../../src/pool.ts'
import { FakeDriver, settled } from '../../src/testing/index.ts'

/** A clock that goes on while others compute, and whose timers fire up to a millisecond early, as those of Node do. */
class UnevenClock implements Clock {
  readonly #step: number
  readonly #timers = new Set<{ readonly at: number; readonly fn: () => void }>()
  #now = 1_000

  constructor(step: number) {
    this.#step = step
  }

  now(): number {
    this.#now += this.#step
    return this.#now
  }

  setTimer(fn: () => void, ms: number): Timer {
    const timer = { at: this.#now + Math.max(1, Math.trunc(ms)), fn }
    this.#timers.add(timer)
    return { cancel: () => void this.#timers.delete(timer) }
  }

  /** Fires the next timer, unless that is after `until`. */
  fire(until: number): boolean {
    const [timer] = [...this.#timers].toSorted((one, other) => one.at - other.at)
    if (!timer || timer.at > until) return false
    this.#timers.delete(timer)
    this.#now = Math.max(this.#now, timer.at)
    timer.fn()
    return true
  }
}

describe('Upkeep', () => {
  // 0.5 ms is a busy machine: between two looks at the clock the end of the pause may pass.
  test.each([0.001, 0.01, 0.1, 0.5])(
    'connects again after each pause, if each look at the clock takes %d ms',
    async (step) => {
      for (let round = 0; round < 200; round++) {
        const driver = new FakeDriver()
        const clock = new UnevenClock(step)
        const pool = new Pool({ driver, clock, acquireTimeoutMs: 10_000 })
        driver.once('open', ...Array.from({ length: 4 }, () => new Error('the server is away')))
        let lease: unknown
        void pool.acquire().then((one) => (lease = one))
        // The pauses are 0, 50, 100 and 200 ms.
        do await settled()
        while (lease === undefined && clock.fire(2_000))
        expect(lease, `round ${round}: ${JSON.stringify(pool.stats())}`).toBeDefined()
      }
    },
  )
})
