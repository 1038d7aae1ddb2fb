import type { Clock, Timer } from '../clock.ts'
import { DeadlineError, heed, withinDeadline } from '../deadline.ts'
import { setDeadline } from '../deadline-timer.ts'
import { AcquireTimeoutError, QueryTimeoutError, optionRangeError, optionTypeError } from '../errors.ts'
import { duration, onlyKnown } from '../options.ts'
import type { AcquireOptions } from '../pool.ts'
import type { PoolStats } from '../stats.ts'
import { Ambient } from './ambient.ts'
import { rejectEarly, settleBy } from './query.ts'
import type { Aiming, Bounds, MadeLimits, QueryLimits, RawQuery, Target } from './query.ts'

interface Details {
  readonly clock: Clock
  /** For every query. */
  readonly queryTimeoutMs: number
  readonly acquireTimeoutMs: number
  readonly stats: () => PoolStats
}

/** How long the queries of one pool may take. */
export class Deadlines {
  readonly #details: Details
  readonly #around = new Ambient<Bounds>(true)
  readonly #always: MadeLimits | undefined

  constructor(details: Details) {
    this.#details = details
    this.#always = details.queryTimeoutMs === Infinity ? undefined : { own: undefined, around: undefined }
  }

  /** What holds for a query that is made here; undefined if nothing does. */
  limitsHere(own: QueryLimits | undefined): MadeLimits | undefined {
    const around = this.here
    return own || around ? { own, around } : this.#always
  }

  /** Runs `fn`: what it makes until it has settled ends in time. Of several around each other, the tightest holds. */
  async within<R>(limits: QueryLimits, fn: () => R | PromiseLike<R>): Promise<R> {
    const { signal, timeoutMs = Infinity } = checkLimits(limits)
    const outer = this.here
    const endsAt = this.#details.clock.now() + timeoutMs
    const signals = outer?.signals ?? []
    const tighter = outer && outer.endsAt <= endsAt ? outer : { endsAt, timeoutMs }
    const bounds: Bounds = {
      ended: false,
      endsAt: tighter.endsAt,
      timeoutMs: tighter.timeoutMs,
      signals: signal ? [...signals, signal] : signals,
    }
    try {
      return await this.#around.run(bounds, fn)
    } finally {
      bounds.ended = true
    }
  }

  /**
   * An acquire's options, as far as those let it wait that were around where it was asked for. Throws if they do not.
   */
  acquiring(options: AcquireOptions = {}, around: Bounds | undefined = this.here): AcquireOptions {
    if (!around || around.ended) return options
    const leftMs = this.leftFor(around)
    const { acquireTimeoutMs } = this.#details
    const signals = options.signal ? [...around.signals, options.signal] : around.signals
    return {
      ...options,
      ...(signals.length > 0 ? { signal: anyOf(signals) } : {}),
      timeoutMs: Math.min(options.timeoutMs ?? acquireTimeoutMs, Math.ceil(leftMs)),
    }
  }

  /** The milliseconds that an acquire may take which those are around. Throws if there are none left. */
  leftFor(around: Bounds): number {
    if (around.ended) return Infinity
    for (const signal of around.signals) signal.throwIfAborted()
    const { clock, stats } = this.#details
    const leftMs = around.endsAt - clock.now()
    const { timeoutMs } = around
    if (leftMs > 0) return leftMs
    throw new AcquireTimeoutError({ phase: 'queue', waitedMs: timeoutMs - leftMs, timeoutMs, stats: stats() })
  }

  /** A statement that the pool sends for a user, SAVEPOINT for one, has the deadline of every query. */
  async statement(send: (signal?: AbortSignal) => Promise<unknown>): Promise<void> {
    const { clock, queryTimeoutMs: timeoutMs, stats } = this.#details
    if (timeoutMs === Infinity) return void (await send())
    try {
      await withinDeadline(send, { clock, ms: timeoutMs })
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error
      throw new QueryTimeoutError({ phase: 'run', waitedMs: timeoutMs, timeoutMs, stats: stats() })
    }
  }

  /** What is around the caller. */
  get here(): Bounds | undefined {
    if (!this.#around.joined) return undefined
    for (const bounds of this.#around.around()) if (!bounds.ended) return bounds
    return undefined
  }

  /** Sees to it that a query that is being run ends in time. */
  watch(query: RawQuery, aim: Aiming, target: Target): void {
    const { own, around } = query.limits ?? {}
    const { clock, queryTimeoutMs, stats } = this.#details
    const startedAt = clock.now()
    const timeoutMs = Math.min(own?.timeoutMs ?? Infinity, queryTimeoutMs)
    const endsAt = startedAt + timeoutMs
    const isTighter = around !== undefined && around.endsAt < endsAt
    const signals = own?.signal ? [...(around?.signals ?? []), own.signal] : (around?.signals ?? [])
    const { reject } = query
    const watch = new Watch(query, {
      endsAt: isTighter ? around.endsAt : endsAt,
      timeoutMs: isTighter ? around.timeoutMs : timeoutMs,
      signals,
      clock,
      aim,
      target,
      stats,
      startedAt,
    })
    query.watch = watch
    settleBy(query, {
      reject: (error) => {
        // Otherwise the connection tells when the answer is complete.
        if (!query.runsOn) watch.stop()
        reject(watch.named(error))
      },
    })
    watch.start()
  }
}

/** One query, and what it is watched for. */
interface Watched extends Omit<Bounds, 'ended'> {
  readonly clock: Clock
  readonly startedAt: number
  readonly stats: () => PoolStats
  readonly aim: Aiming
  readonly target: Target
}

/**
 * The deadline of one query, from when it is run until its answer is complete: that is later than when its promise
 * settles, if it is a cursor's or a stream's.
 *
 * State: watching → over | stopped
 */
class Watch {
  readonly #query: RawQuery
  readonly #watched: Watched
  #timer: Timer | undefined
  #stopped = false

  constructor(query: RawQuery, watched: Watched) {
    this.#query = query
    this.#watched = watched
  }

  start(): void {
    const { signals, clock, endsAt } = this.#watched
    const aborted = signals.find((signal) => signal.aborted)
    if (aborted) return this.#end(aborted.reason)
    if (endsAt <= clock.now()) return this.#end(this.#timeout())
    for (const signal of signals) heed(signal, this)
    if (endsAt !== Infinity) this.#timer = setDeadline(clock, endsAt, () => this.#end(this.#timeout()))
  }

  stop(): void {
    if (this.#stopped) return
    this.#stopped = true
    this.#timer?.cancel()
    for (const signal of this.#watched.signals) signal.removeEventListener('abort', this)
  }

  /** A signal has aborted. */
  handleEvent({ target }: { target: unknown }): void {
    this.#end((target as AbortSignal).reason)
  }

  /**
   * The connection with which a lazy transaction begins is acquired within the same deadline, and which of the two is
   * met first is chance: to whoever runs a query it is the query's.
   */
  named(error: unknown): unknown {
    const { clock, endsAt } = this.#watched
    return error instanceof AcquireTimeoutError && clock.now() >= endsAt - 1 ? this.#timeout(error) : error
  }

  #timeout(shortage?: AcquireTimeoutError): QueryTimeoutError {
    const { clock, startedAt, timeoutMs, stats, target } = this.#watched
    const phase = this.#query.state ? 'run' : 'queue'
    const why = shortage ?? (phase === 'queue' ? target.shortOf?.(this.#query, timeoutMs) : undefined)
    const cause = why instanceof AcquireTimeoutError ? why : undefined
    const error = new QueryTimeoutError({ phase, waitedMs: clock.now() - startedAt, timeoutMs, stats: stats(), cause })
    // A timer's own stack tells nobody which query it was.
    const { origin } = this.#query
    if (origin) error.stack = String(error) + origin.replace(/.*\n/, '\n')
    return error
  }

  #end(error: unknown): void {
    if (this.#stopped) return
    this.stop()
    const query = this.#query
    query.forEachFn &&= nothing
    rejectEarly(query, error)
    this.#watched.aim.cancel(query)
  }
}

const limitNames: readonly (keyof QueryLimits)[] = ['signal', 'timeoutMs']

/** Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'`. */
export function checkLimits(limits: QueryLimits): QueryLimits {
  onlyKnown(limits, limitNames)
  const { signal, timeoutMs } = limits
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw optionTypeError('signal', 'signal must be an AbortSignal.')
  }
  checkTimeout('timeoutMs', timeoutMs)
  return limits
}

/** A deadline for queries. */
export function checkTimeout(option: string, value: unknown): number {
  if (value === 0) throw optionRangeError(option, `${option} must be above 0: got 0. To wait for ever use Infinity.`)
  return duration(option, value, Infinity, { endless: true })
}

function anyOf(signals: readonly AbortSignal[]): AbortSignal {
  const [first] = signals
  return first && signals.length === 1 ? first : AbortSignal.any([...signals])
}

function nothing(): void {}
