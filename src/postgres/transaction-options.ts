import { optionRangeError, optionTypeError } from '../errors.ts'
import type { OptionError } from '../errors.ts'
import { duration, onlyKnown } from '../options.ts'

/** From the weakest to the strongest. */
export type Isolation = 'read uncommitted' | 'read committed' | 'repeatable read' | 'serializable'

const isolations: readonly Isolation[] = ['read uncommitted', 'read committed', 'repeatable read', 'serializable']

/** How a transaction begins, and how long it may take. */
export interface SessionOptions {
  /** Default: the server's, mostly `'read committed'`. */
  isolation?: Isolation
  /** Default: the server's, mostly false. */
  readOnly?: boolean
  /** Waits at its beginning until a serializable read-only transaction can no longer fail. @default false */
  deferrable?: boolean
  /** Rolls back and rejects with `signal.reason`, unless COMMIT has been sent. */
  signal?: AbortSignal
  /**
   * Milliseconds for everything together: the connection, the callback, COMMIT and all retries. At the end what runs
   * is cancelled and rolled back. In place of the pool's `acquireTimeoutMs`, too. At least 1.
   * @default Infinity, after `acquireTimeoutMs` for the connection
   */
  timeoutMs?: number
}

/** What `pool.transaction()` takes. */
export interface TransactionOptions extends SessionOptions {
  /**
   * Begins with the first query: before that there is no connection and no BEGIN, and none at all if there is no query.
   * @default false
   */
  lazy?: boolean
  /**
   * Is always rolled back; the callback's result is returned. For tests. Constraints that are deferred to COMMIT are not
   * checked.
   * @default false
   */
  rollback?: boolean
  /**
   * A transaction on a connection of its own, also inside another one: it neither sees what that has written, nor is it
   * undone with it, and it may wait for its locks.
   * @default false
   */
  independent?: boolean
  /**
   * How many times more the whole callback may run, each time in a new transaction, when the server has failed it for
   * another one's sake: 40001 (serialization) and 40P01 (deadlock). Pauses a little longer each time, 5 ms to 1 s.
   * Without effect on a savepoint: only the whole transaction can be run again.
   * @default 0
   */
  retries?: number
}

/** What has options. */
type Kind = 'session' | 'transaction'

const flags = ['readOnly', 'deferrable', 'lazy', 'rollback', 'independent'] as const
const ofSessions = ['isolation', 'readOnly', 'deferrable', 'signal', 'timeoutMs']
const known: Readonly<Record<Kind, readonly string[]>> = {
  session: ofSessions,
  transaction: [...ofSessions, 'lazy', 'rollback', 'independent', 'retries'],
}

/** Throws `ERR_OPTION` for what is not known or not possible. */
export function checkTransactionOptions(options: TransactionOptions, of: Kind = 'transaction'): void {
  onlyKnown(options, known[of], `a ${of}`)
  const { isolation, retries = 0, timeoutMs } = options
  if (isolation !== undefined && !isolations.includes(isolation)) {
    throw optionTypeError('isolation', `isolation must be one of '${isolations.join("', '")}'.`)
  }
  for (const flag of flags) {
    if (options[flag] !== undefined && typeof options[flag] !== 'boolean') {
      throw optionTypeError(flag, `${flag} must be true or false.`)
    }
  }
  if (typeof retries !== 'number') throw optionTypeError('retries', 'retries must be a number.')
  if (retries !== Infinity && (!Number.isInteger(retries) || retries < 0)) {
    throw optionRangeError('retries', `retries must be a whole number from 0, or Infinity: got ${retries}.`)
  }
  duration('timeoutMs', timeoutMs, Infinity, { from: 1, endless: true })
}

/** `BEGIN` as the options want it. */
export function beginStatement({ isolation, readOnly, deferrable }: SessionOptions): string {
  const parts: string[] = []
  if (isolation) parts.push(`ISOLATION LEVEL ${isolation.toUpperCase()}`)
  if (readOnly !== undefined) parts.push(readOnly ? 'READ ONLY' : 'READ WRITE')
  if (deferrable !== undefined) parts.push(deferrable ? 'DEFERRABLE' : 'NOT DEFERRABLE')
  return parts.length > 0 ? `BEGIN ${parts.join(', ')}` : 'BEGIN'
}

/** Throws `ERR_OPTION` where a savepoint cannot be what was asked for, since the transaction around it is not. */
export function checkSavepointOptions(options: SessionOptions, around: SessionOptions): void {
  const { isolation, readOnly, deferrable } = options
  if (isolation && rank(isolation) > rank(around.isolation)) {
    throw cannotBe('isolation', `'${isolation}'`, around.isolation ? `'${around.isolation}'` : "the server's default")
  }
  if (readOnly === false && around.readOnly) throw cannotBe('readOnly', 'false', 'true')
  if (deferrable && !around.deferrable) throw cannotBe('deferrable', 'true', 'false')
}

/** The server's default is not known; none is weaker than the first. */
function rank(isolation: SessionOptions['isolation']): number {
  return isolation ? isolations.indexOf(isolation) : 0
}

function cannotBe(option: string, wanted: string, around: string): OptionError {
  return optionTypeError(
    option,
    `Cannot begin with ${option} ${wanted} inside a transaction with ${around}: a savepoint is what the transaction is. Ask for it there, or use independent: true.`,
  )
}
