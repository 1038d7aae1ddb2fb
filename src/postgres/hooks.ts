import { orAborted } from '../deadline.ts'
import { PoolError, messageOf } from '../errors.ts'
import type { Hooks } from '../options.ts'
import type { Connection } from './connection.ts'
import type { HookSession, PostgresHooks } from './options.ts'
import type { RawQuery, Target } from './query.ts'
import { createSql } from './sql.ts'
import type { Template } from './template.ts'

/** The queries of one call of a hook: all on its connection, and none after the call. */
class HookTarget implements Target {
  readonly debug: unknown
  readonly #hook: string
  #connection: Connection | undefined

  constructor(hook: string, connection: Connection, debug: unknown) {
    this.#hook = hook
    this.#connection = connection
    this.debug = debug
  }

  run(query: RawQuery): void {
    if (this.#connection) return void this.#connection.run(query)
    const message = `Cannot use the sql of ${this.#hook} after it has returned or met its deadline: await its queries in it.`
    query.reject(new PoolError('ERR_LEASE_RELEASED', message))
  }

  end(): void {
    this.#connection = undefined
  }
}

/**
 * The user's hooks, called with a tag for the connection in place of the connection.
 *
 * Always: what `onOpen` has done to a session is no trace of a lease, and a reset, which undoes it, is followed by
 * another call of `onOpen`.
 */
export class HookCalls {
  readonly #hooks: PostgresHooks
  readonly #template: Template

  constructor(hooks: PostgresHooks, template: Template) {
    this.#hooks = hooks
    this.#template = template
  }

  /** Whether a session may be other than the server made it, also where no lease has left anything behind. */
  get alterSessions(): boolean {
    return this.#hooks.onOpen !== undefined || this.#hooks.onAcquire !== undefined
  }

  /** `onOpen`: on a new session, and again after each reset. Rejects if it fails, or leaves more than settings behind. */
  async opened(connection: Connection, { again, signal }: { again: boolean; signal: AbortSignal }): Promise<void> {
    const { onOpen } = this.#hooks
    if (!onOpen) return
    try {
      signal.throwIfAborted()
      const call = this.#call('onOpen', connection, (sql) => onOpen(sql, { ...sessionOf(connection), again }), signal)
      await orAborted(Promise.resolve(call), signal)
      if (await connection.isUnfinished()) throw new Error('it left a COPY or a cursor unfinished')
      await connection.whenIdle(signal)
      if (connection.status !== 'I') throw new Error('it left a transaction open')
      connection.traces.adopt()
      if (connection.traces.stale)
        throw new Error('it used DEALLOCATE or DISCARD: its prepared statements are not known')
    } catch (cause) {
      throw new Error(`onOpen failed: ${messageOf(cause)}`, { cause })
    }
  }

  /** The others, as the pool calls them. `clean` undoes what `onRelease` has left behind. */
  forPool(clean: (connection: Connection) => Promise<void>): Hooks<Connection> {
    const { onAcquire, onRelease, onClose } = this.#hooks
    const hooks: Hooks<Connection> = {}
    if (onAcquire) {
      hooks.onAcquire = (connection) =>
        this.#call('onAcquire', connection, (sql) => onAcquire(sql, sessionOf(connection)))
    }
    if (onRelease) {
      hooks.onRelease = async (connection) => {
        const answer = await this.#call('onRelease', connection, (sql) => onRelease(sql, sessionOf(connection)))
        if (answer !== false) await clean(connection)
        return answer
      }
    }
    if (onClose) hooks.onClose = (connection, reason) => onClose(sessionOf(connection), reason)
    return hooks
  }

  /** An answer that comes at once is passed on at once. */
  #call(
    hook: string,
    connection: Connection,
    call: (sql: ReturnType<typeof createSql<{}>>) => unknown,
    signal?: AbortSignal,
  ): unknown {
    const { debug } = this.#template.options
    const target = new HookTarget(hook, connection, debug)
    const end = (): void => target.end()
    let answer: unknown
    try {
      answer = call(createSql(this.#template, target))
    } catch (error) {
      end()
      throw error
    }
    if (!isPromise(answer)) {
      // What it has only just started is on its way in a microtask.
      queueMicrotask(end)
      return answer
    }
    signal?.addEventListener('abort', end, { once: true })
    return answer.then(
      (value) => {
        end()
        return value
      },
      (error: unknown) => {
        end()
        throw error
      },
    )
  }
}

function sessionOf({ identity: { pid, tag } }: Connection): HookSession {
  return { pid, tag }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}
