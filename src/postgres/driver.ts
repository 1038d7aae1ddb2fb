import type { Driver, Identity, ResetMode } from '../driver.ts'
import { ConnectError } from '../errors.ts'
import type { Hooks } from '../options.ts'
import { connectError } from './connect-error.ts'
import type { Connection } from './connection.ts'
import { HookCalls } from './hooks.ts'
import { Opener } from './open.ts'
import type { PostgresSettings } from './options.ts'
import { reapEverywhere } from './reap-hosts.ts'
import { resetStatement } from './reset.ts'
import type { Template } from './template.ts'
import { ArrayTypes } from './types.ts'

/** What a connection that came too late is given to close in an orderly way: less than the deadline's own grace. */
const graceMs = 400

/** How the pool opens, checks, cleans and closes connections to one PostgreSQL server. */
export class PostgresDriver implements Driver<Connection> {
  readonly #settings: PostgresSettings
  readonly #opener: Opener
  readonly #types: ArrayTypes
  readonly #hooks: HookCalls

  constructor(settings: PostgresSettings, template: Template) {
    this.#settings = settings
    this.#opener = new Opener(settings, template)
    this.#types = new ArrayTypes(template.options, settings.fetchTypes)
    this.#hooks = new HookCalls(settings.hooks, template)
  }

  async open({ signal, tag }: { signal: AbortSignal; tag: string }): Promise<Connection> {
    const connection = await this.#opener.open(tag, signal)
    try {
      await this.#types.ready(connection, signal).catch((cause: unknown) => {
        throw new ConnectError('it did not tell its array types (fetch_types: false goes without)', { cause })
      })
      await this.#hooks.opened(connection, { again: false, signal })
      return connection
    } catch (cause) {
      const released = await connection.end(signal.aborted ? AbortSignal.timeout(graceMs) : signal).then(
        () => true,
        () => false,
      )
      if (released) this.#opener.forget(tag)
      throw connectError(this.#settings, cause, !released, this.#opener.addressOf(connection))
    }
  }

  /** What the pool calls beside the driver; `onOpen` is part of opening, and of each reset. */
  get hooks(): Hooks<Connection> {
    const { signal } = new AbortController()
    return this.#hooks.forPool(async (connection) => {
      const mode = this.#settings.pool.reset === 'none' ? 'none' : 'auto'
      if (this.needsReset(connection, mode)) await this.reset(connection, { mode, signal })
    })
  }

  async close(connection: Connection, signal: AbortSignal): Promise<void> {
    await connection.end(signal)
    this.#opener.forget(connection.identity.tag)
  }

  async ping(connection: Connection, signal: AbortSignal): Promise<void> {
    await connection.ask('', [], signal)
  }

  needsReset(connection: Connection, mode: ResetMode): boolean {
    if (mode === 'none') return false
    if (!connection.idle || connection.status !== 'I' || mode === 'full') return true
    return connection.traces.session || connection.traces.stale
  }

  /** Waits for what still runs, then rolls back and cleans, in one round trip; then the session is configured again. */
  async reset(connection: Connection, { mode, signal }: { mode: ResetMode; signal: AbortSignal }): Promise<void> {
    if (mode === 'none') return
    if (await connection.isUnfinished()) throw new Error('a COPY or a cursor was left unfinished')
    if (!connection.idle) {
      try {
        await connection.whenIdle(signal)
      } catch (error) {
        connection.cancelAll()
        throw error
      }
    }
    const { traces } = connection
    if (traces.stale) throw new Error('it used what no reset undoes: PREPARE, DEALLOCATE or DISCARD, LOAD, setseed()')
    const statements: string[] = []
    if (connection.status !== 'I') statements.push('ROLLBACK')
    const cleans = mode === 'full' || traces.session
    if (cleans) statements.push(resetStatement)
    if (statements.length === 0) return
    await connection.ask(statements.join(';'), [], signal)
    if (connection.status !== 'I') throw new Error('a transaction is still open after ROLLBACK')
    traces.clean()
    if (cleans) await this.#hooks.opened(connection, { again: true, signal })
  }

  isBroken(connection: Connection): boolean {
    if (connection.isLost) return true
    // Nothing will wait for what it still does.
    return this.#settings.pool.reset === 'none' && !connection.idle
  }

  onClose(connection: Connection, fn: (cause: unknown) => void): void {
    connection.onLost(fn)
  }

  identity(connection: Connection): Identity {
    return connection.identity
  }

  ref(connection: Connection): void {
    connection.ref()
  }

  unref(connection: Connection): void {
    connection.unref()
  }

  async reap(
    identity: Identity,
    { via, signal }: { via: Connection | undefined; signal: AbortSignal },
  ): Promise<boolean> {
    if (!via || !this.#hooks.alterSessions) return reapEverywhere(this.#opener, identity, { via, signal })
    // Another role, for one, must not end the session. A release that resets configures it again; without, it must stay as it is.
    if (this.#settings.pool.reset === 'none') return reapEverywhere(this.#opener, identity, { via: undefined, signal })
    via.traces.session = true
    await via.ask(resetStatement, [], signal)
    return reapEverywhere(this.#opener, identity, { via, signal })
  }
}
