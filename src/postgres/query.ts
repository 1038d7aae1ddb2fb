import { PoolError, QueryCancelledError } from '../errors.ts'

/**
 * A query of postgres.js from inside: a promise that does nothing before somebody waits for it. Then it calls its
 * `handler`, once, with itself. The fields beyond the documented ones are those of version 3.4.
 */
export interface RawQuery extends Promise<unknown> {
  handler: Handler
  canceller: ((query: RawQuery) => unknown) | null
  strings: readonly string[]
  options: { simple?: boolean }
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
  /** The text that was sent; from the hand-over on. */
  string?: string
  /** The session that has it; from the hand-over on. */
  state: unknown
  /** Handed over and not settled. */
  active: boolean
  executed: boolean
  /** Its rows come as arrays of bytes. */
  isRaw?: unknown
  cancelled: unknown
  /** The error for which postgres.js sends a prepared statement a second time. */
  retried?: unknown
  forEachFn?: unknown
  cursor: unknown
  cursorFn?: ((rows: unknown) => unknown) | undefined
  cursorRows?: number
  /** A COPY whose stream is asked for. */
  streaming?: boolean
  /** Where it was made, as lines of a stack. */
  readonly origin: string
  /** Ours: the connection that has it. */
  runsOn?: { cancel(query: RawQuery): void }
  /** Ours: who reads its cursor. */
  reader?: PortionReader
  /** Ours: how long it may take, as it was when it was made. */
  limits?: MadeLimits
  /** Ours: resolves when nothing is under way for it any more, where that has to be waited for. */
  givenBack?: Promise<void>
  /** Ours: sees to its deadline, and hears where it went. */
  watch?: { sent?(connection: string): void; stop(): void }
  /** Runs it, if nothing has yet. */
  handle(): Promise<void>
}

export interface Handler {
  (query: RawQuery): void
  /** Makes queries note where they were made. */
  debug?: unknown
}

/** Who reads a cursor, as its connection sees it. */
export interface PortionReader {
  /** It wants no more; the words for it may still be on their way to the server. */
  readonly left: boolean
  /** Takes the portion out of its hands: the server is told to close the cursor. */
  leave(): void
}

/** How long a query may take. */
export interface QueryLimits {
  /** Cancels it and rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined
  /** Milliseconds from the moment it is run, waiting for a connection included. At least 1. */
  readonly timeoutMs?: number | undefined
}

/** The same for all that is made inside of a `within`. */
export interface Bounds {
  /** Its callback has settled: what that has left behind is nobody's who waits. */
  ended: boolean
  readonly endsAt: number
  readonly timeoutMs: number
  readonly signals: readonly AbortSignal[]
}

/** What holds for one query: limits of its own, and those around it. */
export interface MadeLimits {
  readonly own: QueryLimits | undefined
  readonly around: Bounds | undefined
}

/** Where queries go. */
export interface Target {
  /** Takes the query to a connection. It may have been cancelled before it gets there. */
  run(query: RawQuery): void
  /** Is to see each query before it is run. */
  readonly hold?: ((query: RawQuery) => void) | undefined
  /** A query that has not got to a connection was cancelled. */
  left?(query: RawQuery): void
  /** Why a query that has not got to a connection has none, `timeoutMs` after it was run: an `AcquireTimeoutError`. */
  shortOf?(query: RawQuery, timeoutMs: number): unknown
  readonly debug: unknown
}

/** Whether a call of the tag made a query, and not a helper for one. */
export function isQuery(made: unknown): made is RawQuery {
  return typeof made === 'object' && made !== null && 'canceller' in made && 'handler' in made
}

/** Ends a query that has not been handed over. */
export function cancelUnsent(query: RawQuery): void {
  query.cancelled = true
  query.reject(new QueryCancelledError())
}

/**
 * Tells whoever waits for a query that it has failed, while its answer is still to come. To postgres.js it goes on: what
 * comes is read as its answer.
 */
export function rejectEarly(query: RawQuery, error: unknown): void {
  const { active } = query
  query.reject(error)
  query.active = active
}

/**
 * A query is what it is from the moment it is handed over: its answer is read by what it was sent as, and one that
 * changed meanwhile would take the next one's.
 */
export function freeze(query: RawQuery): void {
  void Object.assign(query, frozen)
}

const frozen = { simple: late, cursor: late, describe: late, forEach: late, raw: late, values: late }

function late(): never {
  const message = 'Cannot change a query that has been sent: call .values(), .cursor() … before it is awaited.'
  throw new PoolError('ERR_QUERY_SENT', message)
}
