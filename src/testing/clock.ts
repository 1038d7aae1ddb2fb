import type { Clock, Timer } from '../clock.ts'

interface SetTimer {
  readonly dueAt: number
  readonly order: number
  readonly keepAlive: boolean
  readonly fn: () => void
}

/**
 * A clock that stands still until it is told to advance. Its `now()` is exact: it has no `coarse()`.
 *
 * @example
 * ```ts
 * import { Pool } from 'millpond'
 * import { FakeClock, FakeDriver } from 'millpond/testing'
 *
 * const clock = new FakeClock()
 * const pool = new Pool({ driver: new FakeDriver(), clock, idleTimeoutMs: 1_000 })
 * await pool.use(async () => {})
 * await clock.advance(2_000)
 * pool.stats().idle // => 0
 * ```
 */
export class FakeClock implements Clock {
  #now: number
  #order = 0
  readonly #timers = new Set<SetTimer>()

  /** @param startAt what `now()` says at first; not 0, so that nothing takes a time for a missing one */
  constructor(startAt = 1_000_000) {
    this.#now = startAt
  }

  /** Milliseconds, as the pool sees them. */
  now(): number {
    return this.#now
  }

  /** As the pool calls it: runs `fn` when the clock has been advanced by `ms`. */
  setTimer(fn: () => void, ms: number, keepAlive = true): Timer {
    const timer = { dueAt: this.#now + ms, order: this.#order++, keepAlive, fn }
    this.#timers.add(timer)
    return { cancel: () => void this.#timers.delete(timer) }
  }

  /** Resolves when `ms` milliseconds have passed on this clock: a call that takes its time. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.setTimer(resolve, ms)
    })
  }

  /** Timers that are set. `keepAlive` counts those that would keep a process alive. */
  get timers(): { readonly all: number; readonly keepAlive: number } {
    return { all: this.#timers.size, keepAlive: [...this.#timers].filter((timer) => timer.keepAlive).length }
  }

  /** Lets `ms` milliseconds pass: timers fire in order, and whatever they set in motion runs in between. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms
    await settled()
    for (let timer = this.#next(until); timer; timer = this.#next(until)) {
      this.#now = Math.max(this.#now, timer.dueAt)
      this.#timers.delete(timer)
      timer.fn()
      await settled()
    }
    this.#now = until
  }

  /**
   * Lets time pass, from timer to timer, until the promise settles; resolves or rejects as it does. Throws when it has
   * not settled in `atMostMs` milliseconds of this clock.
   *
   * @example
   * ```ts
   * import { Pool } from 'millpond'
   * import { FakeClock, FakeDriver } from 'millpond/testing'
   *
   * const clock = new FakeClock()
   * const pool = new Pool({ driver: new FakeDriver(), clock, max: 1 })
   * const lease = await pool.acquire()
   * await clock.advanceUntil(pool.acquire()).catch((error) => error.waitedMs) // => 30_000, at once
   * await lease.release()
   * ```
   */
  async advanceUntil<T>(promise: PromiseLike<T>, atMostMs = 3_600_000): Promise<T> {
    const until = this.#now + atMostMs
    let isSettled = false
    const settle = (): void => {
      isSettled = true
    }
    promise.then(settle, settle)
    await settled()
    while (!isSettled) {
      const timer = this.#next(until)
      if (!timer) throw new Error(`The promise has not settled within ${atMostMs} ms of the fake clock`)
      await this.advance(timer.dueAt - this.#now)
      await settled()
    }
    return promise
  }

  /** Lets `ms` milliseconds pass in which nothing runs, as behind a blocked event loop; then all timers are due. */
  async stall(ms: number): Promise<void> {
    this.#now += ms
    await this.advance(0)
  }

  #next(until: number): SetTimer | undefined {
    let next: SetTimer | undefined
    for (const timer of this.#timers) {
      if (timer.dueAt > until) continue
      if (!next || timer.dueAt < next.dueAt || (timer.dueAt === next.dueAt && timer.order < next.order)) next = timer
    }
    return next
  }
}

/** Resolves when every promise that could go on without time has gone on. */
export function settled(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}
