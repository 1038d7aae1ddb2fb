import type { BrokerStats, PoolStats } from './stats.ts'

/** What every error of millpond extends. Test `code` or the class; the text is for people and may change. */
export class PoolError extends Error {
  override readonly name: string = 'PoolError'
  /** Stable; starts with `ERR_`, but for that of a query that was cancelled. */
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** What an acquire was waiting for when its time ran out. */
export type AcquirePhase = 'queue' | 'permit' | 'connect' | 'ping'

/** A lease that the caller of an acquire held already: it may have waited for itself. */
export interface HeldLease {
  /** The tag of its connection. */
  readonly connection: string
  readonly heldMs: number
  /** The stack that acquired it, with `leakAfterMs`. */
  readonly acquiredAt: string | undefined
}

/** An acquire met its deadline. `phase` and `stats` say what it was short of; `cause` is the last failure to connect. */
export class AcquireTimeoutError extends PoolError {
  override readonly name = 'AcquireTimeoutError'
  readonly phase: AcquirePhase
  readonly waitedMs: number
  readonly timeoutMs: number
  readonly stats: PoolStats
  readonly broker: BrokerStats | undefined
  /** A lease of the same pool that its caller held, inside `use` or a transaction. */
  readonly holds: HeldLease | undefined

  constructor(details: {
    phase: AcquirePhase
    waitedMs: number
    timeoutMs: number
    stats: PoolStats
    cause?: unknown
    holds?: HeldLease | undefined
  }) {
    const { phase, timeoutMs, stats, cause, holds } = details
    super(
      'ERR_ACQUIRE_TIMEOUT',
      `Cannot acquire a connection from "${stats.name}" within ${timeoutMs} ms (phase: ${phase}): ${whyNone(details)}.`,
      cause === undefined ? undefined : { cause },
    )
    this.phase = phase
    this.timeoutMs = timeoutMs
    this.waitedMs = details.waitedMs
    this.stats = stats
    this.broker = stats.broker
    this.holds = holds
  }
}

/** What there was in place of a connection. */
function whyNone({
  stats,
  holds,
  cause,
}: {
  stats: PoolStats
  holds?: HeldLease | undefined
  cause?: unknown
}): string {
  const held = holds
    ? `; its caller already holds a lease of "${stats.name}" (${holds.connection}, for ${Math.round(holds.heldMs)} ms): it may be waiting for itself`
    : ''
  const failure = cause === undefined ? '' : `; the last attempt to connect failed: ${messageOf(cause)}`
  return `${inWords(stats)}${held}${failure}`
}

/** An acquire found `maxWaiting` others in the queue. */
export class QueueFullError extends PoolError {
  override readonly name = 'QueueFullError'
  readonly waiting: number
  readonly maxWaiting: number

  constructor(pool: string, waiting: number, maxWaiting: number) {
    super(
      'ERR_QUEUE_FULL',
      `Cannot queue for a connection from "${pool}": ${waiting} are waiting, and maxWaiting is ${maxWaiting}.`,
    )
    this.waiting = waiting
    this.maxWaiting = maxWaiting
  }
}

/** The pool was closed, or is closing. The stack of `cause` shows who closed it. */
export class PoolClosedError extends PoolError {
  override readonly name = 'PoolClosedError'

  constructor(pool: string, cause?: unknown) {
    super(
      'ERR_POOL_CLOSED',
      `Cannot use the pool "${pool}": it was closed${cause ? '; `cause` shows where' : ''}.`,
      cause ? { cause } : undefined,
    )
  }
}

/** A connection could not be opened. */
export class ConnectError extends PoolError {
  override readonly name = 'ConnectError'
  /** Attempts in a row that failed, this one included. */
  readonly attempts: number
  /** False where trying again cannot help (a wrong password, no such database). */
  readonly retryable: boolean
  /** True if the server may still count the session: its end was not seen. */
  readonly doubtful: boolean
  /** True if the server has no room for another connection now. */
  readonly full: boolean

  constructor(
    message: string,
    details: { attempts?: number; retryable?: boolean; doubtful?: boolean; full?: boolean; cause?: unknown } = {},
  ) {
    super('ERR_CONNECT', message, details.cause === undefined ? undefined : { cause: details.cause })
    this.attempts = details.attempts ?? 1
    this.retryable = details.retryable ?? true
    this.doubtful = details.doubtful ?? false
    this.full = details.full ?? false
  }
}

/** What is used after its end. */
type Ended = 'lease' | 'transaction' | 'ambient' | 'committed' | 'rolled back'

const afterTheEnd: Readonly<Record<Ended, (pool: string) => string>> = {
  lease: (pool) => `Cannot use a lease of "${pool}" after its release: acquire another one, or release it later.`,
  transaction: (pool) =>
    `Cannot run a query in a transaction of "${pool}" after its end: await its queries before its callback returns.`,
  ambient: (pool) =>
    `Cannot run a query of "${pool}" that was made inside a transaction after the end of that transaction: await it before the callback returns, or leave the transaction with pool.outside(() => …).`,
  committed: (pool) => `Cannot roll back a session of "${pool}" that has been committed.`,
  'rolled back': (pool) => `Cannot commit a session of "${pool}" that has been rolled back.`,
}

/** A lease, a transaction or a session was used after its end. */
export class LeaseReleasedError extends PoolError {
  override readonly name = 'LeaseReleasedError'

  constructor(pool: string, what: Ended = 'lease') {
    super('ERR_LEASE_RELEASED', afterTheEnd[what](pool))
  }
}

/** A lease was taken from its holder by force: the pool's `close()` met its deadline. */
export class LeaseRevokedError extends PoolError {
  override readonly name = 'LeaseRevokedError'
  readonly heldMs: number
  readonly reason: string

  constructor(pool: string, heldMs: number, reason: string) {
    super('ERR_LEASE_REVOKED', `The lease of "${pool}" was revoked after ${Math.round(heldMs)} ms: ${reason}.`)
    this.heldMs = heldMs
    this.reason = reason
  }
}

/** The connection ended while it was in use. `cause` is the server's own message where there was one. */
export class ConnectionLostError extends PoolError {
  override readonly name = 'ConnectionLostError'

  constructor(cause?: unknown) {
    super(
      'ERR_CONNECTION_LOST',
      `The connection was lost while it was in use${cause === undefined ? '' : `: ${messageOf(cause)}`}.`,
      cause === undefined ? undefined : { cause },
    )
  }
}

/** What a query was doing when its time ran out: waiting for a connection or for its turn, or running on the server. */
export type QueryPhase = 'queue' | 'run'

/** A query met its deadline. One that ran was cancelled; whether it took effect is not known. */
export class QueryTimeoutError extends PoolError {
  override readonly name = 'QueryTimeoutError'
  readonly phase: QueryPhase
  readonly waitedMs: number
  readonly timeoutMs: number
  readonly stats: PoolStats

  constructor(details: {
    phase: QueryPhase
    waitedMs: number
    timeoutMs: number
    stats: PoolStats
    cause?: AcquireTimeoutError | undefined
  }) {
    const { phase, waitedMs, timeoutMs, stats, cause } = details
    const why = phase === 'run' ? 'it was cancelled' : whyNone(cause ?? { stats })
    super(
      'ERR_QUERY_TIMEOUT',
      `Cannot finish a query on "${stats.name}" within ${timeoutMs} ms (phase: ${phase}): ${why}.`,
      cause && { cause },
    )
    this.phase = phase
    this.waitedMs = waitedMs
    this.timeoutMs = timeoutMs
    this.stats = stats
  }
}

/** A query was cancelled where the server has nothing to say of it. Its `code` is the one of the server's own error. */
export class QueryCancelledError extends PoolError {
  override readonly name = 'QueryCancelledError'

  constructor() {
    super('57014', 'The query was cancelled.')
  }
}

/** A query on a connection whose own cursor or COPY is open: it would wait for what waits for it. */
export class SessionBusyError extends PoolError {
  override readonly name = 'SessionBusyError'
  /** What is open. */
  readonly open: 'cursor' | 'copy'

  constructor(open: 'cursor' | 'copy') {
    const what = open === 'cursor' ? 'a cursor' : 'a COPY'
    super(
      'ERR_SESSION_BUSY',
      `Cannot run a query while ${what} of the same connection is open: end it first, or use another connection.`,
    )
    this.open = open
  }
}

/** The connection was lost after COMMIT had been sent: whether it took effect is not known. Never retried. */
export class TransactionOutcomeUnknownError extends PoolError {
  override readonly name = 'TransactionOutcomeUnknownError'

  constructor(cause: unknown) {
    super(
      'ERR_OUTCOME_UNKNOWN',
      'The connection was lost after COMMIT was sent: the transaction may or may not have taken effect.',
      { cause },
    )
  }
}

export type BrokerErrorCode =
  | 'ERR_NO_BROKER'
  | 'ERR_BROKER_EXISTS'
  | 'ERR_BROKER_MISMATCH'
  | 'ERR_BROKER_FULL'
  | 'ERR_BROKER_CLOSED'

/** A shared limit could not be joined, or is gone. */
export class BrokerError extends PoolError {
  override readonly name = 'BrokerError'
  declare readonly code: BrokerErrorCode

  // oxlint-disable-next-line no-useless-constructor -- it narrows the code
  constructor(code: BrokerErrorCode, message: string, options?: ErrorOptions) {
    super(code, message, options)
  }
}

/**
 * A limit is more than the server, the role or the database can ever give. `sum` is the reckoning, `advice` what to do.
 */
export class LimitError extends PoolError {
  override readonly name = 'LimitError'
  /** The limit, in connections. */
  readonly limit: number
  /** The most that can ever be had. */
  readonly most: number
  readonly sum: string
  readonly advice: readonly string[]

  constructor(
    server: string,
    check: { readonly limit: number; readonly most: number; readonly sum: string; readonly advice: readonly string[] },
  ) {
    const { limit, most, sum, advice } = check
    super(
      'ERR_LIMIT_MISFIT',
      `Cannot have ${limit} connections to "${server}", only ${most}: ${sum}. ${advice.join(' ')}`.trimEnd(),
    )
    this.limit = limit
    this.most = most
    this.sum = sum
    this.advice = advice
  }
}

/** A task failed, could not be found, or returned what cannot cross threads. */
export class TaskError extends PoolError {
  override readonly name = 'TaskError'
  readonly task: string

  constructor(task: string, message: string, options?: ErrorOptions) {
    super('ERR_TASK', message, options)
    this.task = task
  }
}

/** The thread that ran a task or a server ended. */
export class WorkerLostError extends PoolError {
  override readonly name = 'WorkerLostError'
  /** What it ran: a task's or a server's name. */
  readonly task: string
  readonly exitCode: number | undefined

  constructor(task: string, exitCode?: number, options?: ErrorOptions) {
    super(
      'ERR_WORKER_LOST',
      `The worker thread that ran "${task}" ended${exitCode === undefined ? '' : ` with exit code ${exitCode}`}.`,
      options,
    )
    this.task = task
    this.exitCode = exitCode
  }
}

/** A wrong option. A `TypeError` for a wrong kind of value, a `RangeError` for one out of range; both have this code. */
export type OptionError = (TypeError | RangeError) & { readonly code: 'ERR_OPTION'; readonly option: string }

/** An option that is not of the right kind, or not known. */
export function optionTypeError(option: string, message: string): OptionError {
  return Object.assign(new TypeError(message), { code: 'ERR_OPTION' as const, option })
}

/** An option out of range. */
export function optionRangeError(option: string, message: string): OptionError {
  return Object.assign(new RangeError(message), { code: 'ERR_OPTION' as const, option })
}

/** What an event loop may take for once. */
const unresponsiveAfterMs = 250

function inWords(stats: PoolStats): string {
  const doubtful = stats.doubtful > 0 ? ` (${stats.doubtful} in doubt)` : ''
  const closing = stats.closing > 0 ? `, ${stats.closing} closing${doubtful}` : ''
  const own = `${stats.leased} of ${stats.max} leased, ${stats.idle} idle, ${stats.opening} opening${closing}, ${stats.waiting} waiting`
  const { broker } = stats
  if (!broker) return own
  const holding = broker.members.filter((member) => member.held + member.closing > 0)
  const parts = [
    `broker "${broker.name}" ${broker.held + broker.closing} of ${broker.limit} held by ${holding.length} ${holding.length === 1 ? 'member' : 'members'}`,
  ]
  if (broker.limbo > 0) parts.push(`${broker.limbo} of lost members`)
  for (const { threadId, held, unresponsiveMs } of holding) {
    if (unresponsiveMs < unresponsiveAfterMs) continue
    const since = Math.round(unresponsiveMs)
    parts.push(`thread ${threadId} (${held} held) has not answered for ${since} ms: its event loop may be blocked`)
  }
  if (broker.refusedForMs > 0) {
    parts.push(`the server has had no room for another one for ${Math.round(broker.refusedForMs)} ms`)
  }
  return `${own}; ${parts.join(', ')}`
}

/** What an unknown thrown value has to say. */
export function messageOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && !thrown.message) return thrown.errors.map(messageOf).join('; ')
  if (thrown instanceof Error) return thrown.message || thrown.name
  try {
    return String(thrown)
  } catch {
    // Something without a prototype, for example.
    return 'something that cannot be shown'
  }
}
