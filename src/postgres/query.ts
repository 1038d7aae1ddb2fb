import { PoolError, QueryCancelledError } from '../errors.ts'
import type { Origin } from './origin.ts'

/** Sees to it that a query gets where it belongs. */
export interface Aiming {
  /** It is run. */
  start(query: RawQuery): void
  cancel(query: RawQuery): void
  /** Makes a reader of what it will answer. */
  cursor(query: RawQuery, rows?: number | Give, give?: Give): unknown
}

/** Gets a portion of rows; what it returns may be a promise for which the next portion waits. */
export type Give = (rows: readonly unknown[]) => unknown

/** Options of a query that is made of a text: `sql.unsafe()`, `sql.file()`. */
export interface TextOptions {
  readonly prepare?: boolean
  readonly simple?: boolean
}

/** Once for all queries: it has resolved. */
const soon: Promise<void> = Promise.resolve()
// oxlint-disable-next-line unbound-method -- it is called with a query below
const { then } = Promise.prototype

/**
 * A query: a promise that does nothing before somebody waits for it. Then it starts, once.
 *
 * It is postgres.js's own kind of query, to postgres.js and to those who use it, with all of its members (`adopt`), but
 * another class. Those of postgres.js write closures right into properties. V8 puts such ones into the old generation at
 * once, where they keep the query, its answer and all that hangs on it from being collected young: a quarter of all that
 * was allocated was copied around until the next full collection. (`settleBy` is for the same reason.)
 *
 * State
 *   executed   it has started, or will with the next microtask
 *   state      the session that has it; from the hand-over on. It cannot be changed any more: its answer is read by what
 *              it was sent as, and one that changed meanwhile would take the next one's
 *   active     handed over and not settled
 */
export class RawQuery extends Promise<unknown> {
  static override get [Symbol.species](): PromiseConstructor {
    return Promise
  }

  readonly tagged: boolean
  strings: readonly string[]
  readonly args: readonly unknown[]
  readonly options: { prepare?: boolean | undefined; simple?: boolean | undefined }
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
  /** None where `then` is to wait for it, and not to start it. */
  aim: Aiming | undefined
  state: unknown = null
  statement: unknown = null
  /** The text that was sent; from the hand-over on. */
  string: string | undefined = undefined
  signature: unknown = ''
  parameters: unknown = undefined
  /** Whether postgres.js sends it again where its plan is out of date. */
  prepared: unknown = undefined
  active = false
  executed = false
  cancelled: unknown = null
  /** Its rows come as arrays: of values, or of bytes. */
  isRaw: 'values' | boolean | undefined = undefined
  onlyDescribe: boolean | undefined = undefined
  forEachFn: ((row: unknown, result: unknown) => unknown) | undefined = undefined
  cursorFn: ((rows: unknown) => unknown) | undefined = undefined
  declare cursorRows?: number
  /** A COPY whose stream is asked for. */
  declare streaming?: boolean
  /** Ours: what it is resolved with, where postgres.js does not read the rows. */
  rows: unknown[] | undefined = undefined
  /** Ours: its place among those who wait for a connection. */
  place: Place | undefined = undefined
  /** Ours: the connection that has it. */
  runsOn: { cancel(query: RawQuery): void } | undefined = undefined
  /** Ours: how long it may take, as it was when it was made. */
  limits: MadeLimits | undefined = undefined
  /** Ours: sees to its deadline, and hears where it went. */
  watch: { sent?(connection: string): void; stop(): void } | undefined = undefined
  /** Ours: who reads its cursor. */
  declare reader?: PortionReader
  /** Ours: resolves when nothing is under way for it any more, where that has to be waited for. */
  declare givenBack?: Promise<void>
  readonly #madeAt: Origin | undefined
  #retried: unknown = undefined

  /** `madeAt`: has the stack of the place where it was made. */
  constructor(
    strings: readonly string[],
    args: readonly unknown[],
    options: TextOptions | undefined,
    aim: Aiming | undefined,
    madeAt: Origin | undefined,
  ) {
    let succeed!: (value: unknown) => void
    let fail!: (error: unknown) => void
    super((resolve, reject) => {
      succeed = resolve
      fail = reject
    })
    this.tagged = options === undefined
    this.strings = strings
    this.args = args
    this.options = options ? { ...options } : {}
    this.aim = aim
    this.#madeAt = madeAt
    const resolve = (value: unknown): void => {
      this.active = false
      if (this.rows) fill(value as unknown[], this.rows)
      this.rows = undefined
      succeed(value)
    }
    const reject = (error: unknown): void => {
      this.active = false
      this.rows = undefined
      fail(error)
    }
    this.resolve = resolve
    this.reject = reject
  }

  /** Where it was made, as lines of a stack. */
  get origin(): string {
    return this.#madeAt?.stack ?? ''
  }

  /** The error for which postgres.js sends a prepared statement a second time. */
  get retried(): unknown {
    return this.#retried
  }

  /** It would take the texts that it has made of the parameters for the parameters: `true` for `'t'`, which is not true. */
  set retried(error: unknown) {
    this.#retried = error
    this.parameters = undefined
  }

  /** Starts it, if nothing has yet. */
  handle(): void {
    if (this.executed) return
    this.executed = true
    void soon.then(() => this.aim?.start(this))
  }

  execute(): this {
    this.handle()
    return this
  }

  // oxlint-disable-next-line no-thenable -- it is a promise
  override then<A = unknown, B = never>(
    resolved?: ((value: unknown) => A | PromiseLike<A>) | null,
    rejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.handle()
    return then.call(this, resolved, rejected) as Promise<A | B>
  }

  cancel(): void {
    if (!this.cancelled) this.aim?.cancel(this)
  }

  simple(): this {
    this.#notSent()
    this.options.simple = true
    this.options.prepare = false
    return this
  }

  describe(): this {
    this.#notSent()
    this.options.simple = false
    this.options.prepare = true
    this.onlyDescribe = true
    return this
  }

  raw(): this {
    this.#notSent()
    this.isRaw = true
    return this
  }

  values(): this {
    this.#notSent()
    this.isRaw = 'values'
    return this
  }

  forEach(fn: (row: unknown, result: unknown) => unknown): this {
    this.#notSent()
    this.forEachFn = fn
    return this.execute()
  }

  cursor(rows?: number | Give, give?: Give): unknown {
    this.#notSent()
    return this.aim?.cursor(this, rows, give)
  }

  #notSent(): void {
    if (this.state === null) return
    const message = 'Cannot change a query that has been sent: call .values(), .cursor() … before it is awaited.'
    throw new PoolError('ERR_QUERY_SENT', message)
  }
}

/** A query of the pool's own: it is handed to a session, and does not start by itself. */
export function ownQuery(text: string, parameters: readonly unknown[] = []): RawQuery {
  return new RawQuery([text], parameters, { prepare: false, simple: parameters.length === 0 }, undefined, undefined)
}

function fill(answer: unknown[], rows: readonly unknown[]): void {
  for (let i = 0; i < rows.length; i++) answer[i] = rows[i]
}

/**
 * Makes our queries postgres.js's, which tells a query within a query from a value by its class; `its`: one that it has
 * made. Members that we do not have are its own.
 */
export function adopt(its: object): void {
  const prototype: unknown = Object.getPrototypeOf(its)
  if (Object.getPrototypeOf(RawQuery.prototype) !== prototype) {
    Object.setPrototypeOf(RawQuery.prototype, prototype as object)
  }
}

/**
 * Has other functions settle a query; they call those that they replace. To be written down in the call: a closure that is
 * written down where it is assigned to a property is never young.
 */
export function settleBy(
  query: RawQuery,
  { resolve, reject }: { resolve?: RawQuery['resolve']; reject?: RawQuery['reject'] },
): void {
  if (resolve) query.resolve = resolve
  if (reject) query.reject = reject
}

/** Who reads a cursor, as its connection sees it. */
export interface PortionReader {
  /** It wants no more; the words for it may still be on their way to the server. */
  readonly left: boolean
  /** Takes the portion out of its hands: the server is told to close the cursor. */
  leave(): void
}

/** A query's place among those who wait for a connection. */
export interface Place {
  leave(): void
  /** Why it has none, `timeoutMs` after it was run: an `AcquireTimeoutError`. */
  shortage(timeoutMs: number): unknown
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
  /** Whether its queries note where each of them was made. */
  readonly debug: unknown
}

/** Whether a call of a tag made a query, and not a helper for one. */
export function isQuery(made: unknown): made is RawQuery {
  return made instanceof RawQuery
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
