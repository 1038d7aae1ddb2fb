import { Histogram } from './histogram.ts'
import type { CloseReason, PoolStats } from './stats.ts'

type Counted = Pick<
  PoolStats,
  | 'acquires'
  | 'acquiresWaited'
  | 'waitedMs'
  | 'longestWaitMs'
  | 'timeouts'
  | 'aborted'
  | 'refused'
  | 'opens'
  | 'openFailures'
  | 'badReturns'
  | 'leaks'
  | 'waits'
  | 'openings'
  | 'uses'
  | 'closes'
>

/** What has happened in a pool since it was made. */
export class Counters {
  acquires = 0
  timeouts = 0
  aborted = 0
  refused = 0
  opens = 0
  openFailures = 0
  badReturns = 0
  leaks = 0
  readonly closes: Record<CloseReason, number> = {
    idle: 0,
    lifetime: 0,
    uses: 0,
    evicted: 0,
    broken: 0,
    'ping failed': 0,
    refused: 0,
    'reset failed': 0,
    destroyed: 0,
    revoked: 0,
    reclaimed: 0,
    surplus: 0,
    closed: 0,
  }
  readonly waits: Histogram = new Histogram()
  readonly openings: Histogram = new Histogram()
  /** Only where it is asked for: leases come and go more often than anything else. */
  readonly uses: Histogram | undefined

  constructor(timings: boolean) {
    this.uses = timings ? new Histogram() : undefined
  }

  snapshot(): Counted {
    const waits = this.waits.snapshot()
    return {
      acquires: this.acquires,
      acquiresWaited: waits.count,
      waitedMs: waits.totalMs,
      longestWaitMs: waits.maxMs,
      timeouts: this.timeouts,
      aborted: this.aborted,
      refused: this.refused,
      opens: this.opens,
      openFailures: this.openFailures,
      badReturns: this.badReturns,
      leaks: this.leaks,
      waits,
      openings: this.openings.snapshot(),
      uses: this.uses?.snapshot(),
      closes: { ...this.closes },
    }
  }
}
