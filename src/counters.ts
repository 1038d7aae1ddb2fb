import type { CloseReason, PoolStats } from './stats.ts'

type Counted = Pick<
  PoolStats,
  | 'acquires'
  | 'acquiresWaited'
  | 'waitedMs'
  | 'longestWaitMs'
  | 'timeouts'
  | 'aborted'
  | 'opens'
  | 'openFailures'
  | 'closes'
>

/** What has happened in a pool since it was made. */
export class Counters {
  acquires = 0
  timeouts = 0
  aborted = 0
  opens = 0
  openFailures = 0
  readonly closes: Record<CloseReason, number> = {
    idle: 0,
    lifetime: 0,
    uses: 0,
    evicted: 0,
    broken: 0,
    'ping failed': 0,
    'reset failed': 0,
    destroyed: 0,
    revoked: 0,
    reclaimed: 0,
    surplus: 0,
    closed: 0,
  }
  #acquiresWaited = 0
  #waitedMs = 0
  #longestWaitMs = 0

  waited(ms: number): void {
    this.#acquiresWaited++
    this.#waitedMs += ms
    this.#longestWaitMs = Math.max(this.#longestWaitMs, ms)
  }

  snapshot(): Counted {
    return {
      acquires: this.acquires,
      acquiresWaited: this.#acquiresWaited,
      waitedMs: this.#waitedMs,
      longestWaitMs: this.#longestWaitMs,
      timeouts: this.timeouts,
      aborted: this.aborted,
      opens: this.opens,
      openFailures: this.openFailures,
      closes: { ...this.closes },
    }
  }
}
