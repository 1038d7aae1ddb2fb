import type { Driver, Identity, ResetMode } from '../driver.ts'

/** What a call of the fake driver does: succeeds, fails, never settles, or whatever a function does. */
export type Behaviour = 'ok' | 'never' | Error | ((connection: FakeConnection) => Promise<void> | void)

/** A connection to nowhere. */
export class FakeConnection {
  readonly id: number
  readonly tag: string
  /** Set it to have the next release reset. */
  dirty = false
  /** Known to be of no use. */
  broken = false
  pings = 0
  resets = 0
  referenced = true
  /** From the beginning of opening until the far side has let go. */
  counted = true
  readonly #onClose: ((cause: unknown) => void)[] = []

  constructor(id: number, tag: string) {
    this.id = id
    this.tag = tag
  }

  /** Ends the connection from the far side. */
  kill(cause: unknown = new Error('terminated by the server')): void {
    this.broken = true
    this.counted = false
    for (const fn of this.#onClose.splice(0)) fn(cause)
  }

  /** @internal */
  onClose(fn: (cause: unknown) => void): void {
    if (this.counted) this.#onClose.push(fn)
    else fn(new Error('closed'))
  }

  /** @internal */
  letGo(): void {
    this.counted = false
    this.#onClose.length = 0
  }
}

/**
 * A driver without a server, for tests of pools: every call can be made to fail or to hang, and it counts connections
 * as a server would, from the beginning of opening to the end of closing.
 *
 * @example
 * ```ts
 * import { Pool } from 'millpond'
 * import { FakeDriver } from 'millpond/testing'
 *
 * const driver = new FakeDriver()
 * driver.behaviour.ping = new Error('the connection is dead')
 * const pool = new Pool({ driver, pingAfterIdleMs: 0 })
 * ```
 */
export class FakeDriver implements Driver<FakeConnection> {
  /** What each call does from now on. */
  readonly behaviour: Record<'open' | 'close' | 'ping' | 'reset', Behaviour> = {
    open: 'ok',
    close: 'ok',
    ping: 'ok',
    reset: 'ok',
  }
  /** Every connection whose opening has begun, oldest first. */
  readonly connections: FakeConnection[] = []
  /** The most that were counted at once. */
  peak = 0
  /** Makes sure of ends that nobody saw; delete it to see what a pool does without. */
  reap?: NonNullable<Driver<FakeConnection>['reap']> = async (identity) => {
    this.reaped.push(identity)
    this.connections.find((connection) => connection.tag === identity.tag)?.letGo()
    return true
  }
  readonly reaped: Identity[] = []

  /** Connections as the far side counts them now. */
  get counted(): number {
    return this.connections.filter((connection) => connection.counted).length
  }

  async open({ tag }: { signal: AbortSignal; tag: string }): Promise<FakeConnection> {
    const connection = new FakeConnection(this.connections.length + 1, tag)
    this.connections.push(connection)
    this.peak = Math.max(this.peak, this.counted)
    try {
      await this.#act('open', connection)
    } catch (error) {
      connection.letGo()
      throw error
    }
    return connection
  }

  async close(connection: FakeConnection, _signal?: AbortSignal): Promise<void> {
    if (!connection.counted) return
    await this.#act('close', connection)
    connection.letGo()
  }

  async ping(connection: FakeConnection): Promise<void> {
    connection.pings++
    await this.#act('ping', connection)
    if (connection.broken) throw new Error('the connection is broken')
  }

  needsReset(connection: FakeConnection, mode: ResetMode): boolean {
    return mode === 'full' || connection.dirty
  }

  async reset(connection: FakeConnection): Promise<void> {
    connection.resets++
    await this.#act('reset', connection)
    connection.dirty = false
  }

  isBroken(connection: FakeConnection): boolean {
    return connection.broken
  }

  onClose(connection: FakeConnection, fn: (cause: unknown) => void): void {
    connection.onClose(fn)
  }

  identity(connection: FakeConnection): Identity {
    return { pid: connection.id, secret: 0, tag: connection.tag }
  }

  ref(connection: FakeConnection): void {
    connection.referenced = true
  }

  unref(connection: FakeConnection): void {
    connection.referenced = false
  }

  async #act(call: 'open' | 'close' | 'ping' | 'reset', connection: FakeConnection): Promise<void> {
    const behaviour = this.behaviour[call]
    if (behaviour === 'never') await new Promise<never>(() => {})
    else if (behaviour instanceof Error) throw behaviour
    else if (typeof behaviour === 'function') await behaviour(connection)
  }
}
