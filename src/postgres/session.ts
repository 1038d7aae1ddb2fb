import {
  ConnectionLostError,
  LeaseReleasedError,
  PoolError,
  TransactionOutcomeUnknownError,
  optionTypeError,
} from '../errors.ts'
import type { AcquireOptions } from '../pool.ts'
import { codeOf } from './connect-error.ts'
import type { Connection } from './connection.ts'
import type { RawQuery, Target } from './query.ts'
import { createSql } from './sql.ts'
import type { PostgresSql, Types } from './sql.ts'
import type { Template } from './template.ts'

const isolations = ['serializable', 'repeatable read', 'read committed', 'read uncommitted'] as const

export interface TransactionOptions extends AcquireOptions {
  /** Default: the server's, mostly `'read committed'`. */
  isolation?: (typeof isolations)[number]
  /** @default false */
  readOnly?: boolean
  /** Waits until a serializable read-only transaction can no longer fail. @default false */
  deferrable?: boolean
}

/** The tag of one transaction: its queries run inside it, and none of them after its end. */
export interface TransactionSql<T extends Types = {}> extends PostgresSql<T> {
  /** Runs `fn` in a savepoint: when it throws, only what it did is rolled back, and the error is thrown on. */
  savepoint<R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>): Promise<R>
}

/** `BEGIN` as the options want it. Throws `ERR_OPTION` for what is not known. */
export function beginStatement({ isolation, readOnly, deferrable }: TransactionOptions): string {
  if (isolation !== undefined && !isolations.includes(isolation)) {
    throw optionTypeError('isolation', `isolation must be one of '${isolations.join("', '")}'.`)
  }
  const parts = ['BEGIN']
  if (isolation) parts.push(`ISOLATION LEVEL ${isolation.toUpperCase()}`)
  if (readOnly !== undefined) parts.push(readOnly ? 'READ ONLY' : 'READ WRITE')
  if (deferrable !== undefined) parts.push(deferrable ? 'DEFERRABLE' : 'NOT DEFERRABLE')
  return parts.join(' ')
}

/** BEGIN, `fn`, COMMIT; or ROLLBACK, when `fn` throws or one of its statements has failed the transaction. */
export async function runTransaction<T extends Types, R>(
  connection: Connection,
  { template, pool, begin }: { template: Template; pool: string; begin: string },
  fn: (sql: TransactionSql<T>) => R | PromiseLike<R>,
): Promise<R> {
  await connection.ask(begin)
  const scope = new Scope<T>(connection, template, pool)
  let result: R
  try {
    result = await scope.call(fn)
  } catch (error) {
    // What still runs is left to the release, which has a deadline.
    if (connection.idle) await undo(connection, 'ROLLBACK')
    throw error
  }
  const { rows, task } = connection.askTask('COMMIT')
  try {
    await rows
  } catch (error) {
    throw error instanceof ConnectionLostError && task.wrote ? new TransactionOutcomeUnknownError(error) : error
  }
  return result
}

/**
 * One transaction or savepoint.
 *
 * State: open → ended, when `fn` has settled; never back
 */
class Scope<T extends Types> implements Target {
  readonly debug: unknown
  readonly #connection: Connection
  readonly #template: Template
  readonly #pool: string
  #ended = false
  #firstError: unknown

  constructor(connection: Connection, template: Template, pool: string) {
    this.#connection = connection
    this.#template = template
    this.#pool = pool
    this.debug = template.options.debug
  }

  run(query: RawQuery): void {
    if (this.#ended) return query.reject(new LeaseReleasedError(this.#pool))
    const { reject } = query
    query.reject = (error) => {
      this.#firstError ??= error
      reject(error)
    }
    this.#connection.run(query)
  }

  /** Calls `fn`, lets what it did not await finish, and throws what has failed the transaction unless it did. */
  async call<R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>): Promise<R> {
    const connection = this.#connection
    let result: R
    try {
      result = await fn(this.#sql())
    } catch (error) {
      // "Current transaction is aborted" tells nothing of why.
      throw codeOf(error) === '25P02' ? (this.#firstError ?? error) : error
    } finally {
      this.#ended = true
    }
    if (await connection.isUnfinished()) {
      throw new PoolError('ERR_UNFINISHED', 'Cannot end a transaction with a COPY or a cursor of it still open.')
    }
    await connection.whenIdle()
    // The server would answer COMMIT with a rollback, and no error.
    if (connection.status === 'E') {
      throw this.#firstError ?? new PoolError('ERR_TRANSACTION_FAILED', 'A statement has failed the transaction.')
    }
    return result
  }

  #sql(): TransactionSql<T> {
    return Object.assign(createSql<T>(this.#template, this), {
      savepoint: <R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>) => this.#savepoint(fn),
    })
  }

  async #savepoint<R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>): Promise<R> {
    if (this.#ended) throw new LeaseReleasedError(this.#pool)
    const connection = this.#connection
    const name = `millpond_${++savepoints}`
    await connection.ask(`SAVEPOINT ${name}`)
    let result: R
    try {
      result = await new Scope<T>(connection, this.#template, this.#pool).call(fn)
    } catch (error) {
      await undo(connection, `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`)
      throw error
    }
    await connection.ask(`RELEASE SAVEPOINT ${name}`)
    return result
  }
}

let savepoints = 0

/** What cannot be undone here is undone by the release, or with the connection; the caller has an error to throw. */
async function undo(connection: Connection, statement: string): Promise<void> {
  if (await connection.isUnfinished()) return
  try {
    await connection.ask(statement)
  } catch {
    // See above.
  }
}
