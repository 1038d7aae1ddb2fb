import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Clock, Timer } from '../../src/clock.ts'
import type { Core } from '../../src/core.ts'
import type { Lease } from '../../src/lease.ts'
import type { ResolvedOptions } from '../../src/options.ts'
import { Pool } from '../../src/pool.ts'
import { FakeClock, FakeDriver, settled } from '../../src/testing/index.ts'
import type { FakeConnection } from '../../src/testing/index.ts'
import { Upkeep } from '../../src/upkeep.ts'
import { Watch } from '../../src/watch.ts'

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

  test('connects again where somebody else comes at the very end of a pause', async () => {
    for (let looks = 0; looks < 130; looks++) {
      const driver = new FakeDriver()
      const clock = new UnevenClock(0.5)
      const pool = new Pool({ driver, clock, acquireTimeoutMs: 10_000 })
      driver.once('open', new Error('the server is away'), new Error('the server is away'))
      let served = 0
      const acquire = (): void => void pool.acquire().then(() => served++)
      acquire()
      while (pool.stats().openFailures < 2) await settled()
      // The pause of 50 ms ends somewhere on the way.
      for (let i = 0; i < looks; i++) clock.now()
      acquire()
      do await settled()
      while (served < 2 && clock.fire(2_000))
      expect(served, `after ${looks} looks: ${JSON.stringify(pool.stats())}`).toBe(2)
    }
  })

  test('looks once after a pause, where connections go on lacking: from then on the permits call', async () => {
    const clock = new FakeClock()
    const endsAt = clock.now() + 50
    const core = { retryAt: endsAt, waiting: 1, size: 0 } as unknown as Core<object>
    let looks = 0
    const act = (): void => {
      looks++
      upkeep.schedule()
    }
    const options = { clock } as Partial<ResolvedOptions> as ResolvedOptions
    const upkeep = new Upkeep({ core, options, watch: new Watch('p', undefined), act })
    upkeep.schedule()
    await clock.advance(49)
    upkeep.schedule()
    expect(looks).toBe(0)
    await clock.advance(1_000)
    upkeep.schedule()
    expect([looks, clock.timers.all]).toEqual([1, 0])
  })

  test('nobody who waits is forgotten, whatever failed and whenever the clock was looked at', async () => {
    const setting = fc.record({
      step: fc.constantFrom(0.001, 0.05, 0.5, 3),
      min: fc.integer({ min: 0, max: 2 }),
      max: fc.integer({ min: 2, max: 3 }),
      pingAfterIdleMs: fc.constantFrom(0, Infinity),
      deeds: fc.array(fc.constantFrom('acquire', 'release', 'destroy', 'fail', 'ping fails', 'kill', 'fire', 'wait'), {
        maxLength: 60,
      }),
    })
    const property = fc.asyncProperty(setting, async ({ step, deeds, ...options }) => {
      const driver = new FakeDriver()
      const clock = new UnevenClock(step)
      const pool = new Pool({ driver, clock, acquireTimeoutMs: Infinity, idleTimeoutMs: 1_000, ...options })
      let asked = 0
      let served = 0
      const leases: Lease<FakeConnection>[] = []
      const does: Record<(typeof deeds)[number], () => unknown> = {
        acquire() {
          asked++
          void pool.acquire().then((lease) => (served++, leases.push(lease)))
        },
        release: () => leases.shift()?.release(),
        destroy: () => leases.shift()?.destroy(),
        fail: () => driver.once('open', new Error('the server is away')),
        'ping fails': () => driver.once('ping', new Error('the connection is dead')),
        kill: () => driver.killAll(),
        fire: () => clock.fire(Infinity),
        wait: settled,
      }
      for (const deed of deeds) await does[deed]()
      // From now on all goes well: each lease ends, and time passes.
      for (let round = 0; round < 500 && served < asked; round++) {
        await settled()
        await Promise.all(leases.splice(0).map((lease) => lease.release()))
        clock.fire(Infinity)
      }
      expect(served, JSON.stringify(pool.stats())).toBe(asked)
      for (const lease of leases) void lease.release()
      await pool.close({ timeoutMs: 0 })
    })
    await fc.assert(property, { numRuns: 500 })
  })
})
