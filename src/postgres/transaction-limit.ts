import type { Clock, Timer } from '../clock.ts'
import { heed } from '../deadline.ts'
import { setDeadline } from '../deadline-timer.ts'
import { PoolError } from '../errors.ts'

interface Details {
  readonly pool: string
  readonly clock: Clock
  readonly timeoutMs: number | undefined
  readonly signal: AbortSignal | undefined
}

/**
 * How long one transaction may take, all its attempts together: a deadline, and its caller's signal.
 *
 * State: unstarted → running → aborted | stopped
 *
 * An acquire under way has the same deadline, and knows more to say at its end: that comes first.
 */
export class Limit {
  readonly #details: Details
  /** Made for whoever looks at it first: most transactions have no deadline and no signal. */
  #made: AbortController | undefined
  #endsAt = Infinity
  #timer: Timer | undefined
  #started = false
  #acquiring = 0

  constructor(details: Details) {
    this.#details = details
  }

  get #controller(): AbortController {
    this.#made ??= new AbortController()
    return this.#made
  }

  /** The same, if it ever can abort. */
  get signalIfAny(): AbortSignal | undefined {
    const { timeoutMs, signal } = this.#details
    return timeoutMs === undefined && signal === undefined ? undefined : this.signal
  }

  /** Aborts when the time is up, or with the caller's signal and for its reason. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Starts to count. A second call does nothing. */
  start(): void {
    if (this.#started) return
    this.#started = true
    const { clock, timeoutMs, signal } = this.#details
    if (signal?.aborted) return this.handleEvent()
    if (signal) heed(signal, this)
    if (timeoutMs === undefined || timeoutMs === Infinity) return
    this.#endsAt = clock.now() + timeoutMs
    this.#timer = setDeadline(clock, this.#endsAt, () => this.#end())
  }

  /** Acquires within the deadline, `timeoutMs` of which are left; undefined if it has none. */
  async acquiring<L>(acquire: (timeoutMs: number | undefined) => Promise<L>): Promise<L> {
    this.start()
    this.signalIfAny?.throwIfAborted()
    this.#acquiring++
    try {
      return await acquire(this.leftMs)
    } finally {
      this.#acquiring--
      if (this.leftMs === 0) this.#timer = setDeadline(this.#details.clock, this.#endsAt, () => this.#end())
    }
  }

  /** What is left of it; undefined if it has no deadline. */
  get leftMs(): number | undefined {
    return this.#details.timeoutMs === undefined ? undefined : Math.max(0, this.#endsAt - this.#details.clock.now())
  }

  stop(): void {
    this.#timer?.cancel()
    this.#details.signal?.removeEventListener('abort', this)
  }

  /** The caller's signal has aborted. */
  handleEvent(): void {
    this.#timer?.cancel()
    this.#controller.abort(this.#details.signal?.reason)
  }

  #end(): void {
    if (this.#acquiring > 0) return
    const { pool, timeoutMs } = this.#details
    const message = `Cannot finish a transaction of "${pool}" within ${timeoutMs} ms: it was rolled back.`
    this.#controller.abort(new PoolError('ERR_TRANSACTION_TIMEOUT', message))
  }
}
