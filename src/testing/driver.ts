import { orAborted } from '../deadline.ts'
import type { Driver, Identity, ResetMode } from '../driver.ts'

/**
 * What a call of the fake driver does
 *   'ok'             succeeds at once
 *   an error         rejects with it
 *   'never'          never settles, whatever its signal says
 *   'until aborted'  hangs until its signal aborts, then rejects with the signal's reason
 *   a function       whatever it does; `() => clock.sleep(300)` takes 300 ms of a fake clock
 */
export type Behaviour =
  | 'ok'
  | 'never'
  | 'until aborted'
  | Error
  | ((connection: FakeConnection, signal: AbortSignal | undefined) => Promise<void> | void)

/** The calls whose behaviour can be chosen. */
export type FakeCall = 'open' | 'close' | 'ping' | 'reset'

/** A call and the `id` of its connection, as in `'open 1'`. */
export type RecordedCall = `${FakeCall | 'reap'} ${number}`

/** A connection to nowhere. */
export class FakeConnection {
  /** 1 for the first that its driver opened, 2 for the second… */
  readonly id: number
  /** The name that the pool opened it with. */
  readonly tag: string
  /** Set it to have the next release reset. */
  dirty = false
  /** Known to be of no use: set it, and the next release closes. */
  broken = false
  /** Out of reach, and nobody has been told: set it, and pings, resets and closes of it fail. */
  unreachable = false
  /** How often it was pinged. */
  pings = 0
  /** How often it was reset. */
  resets = 0
  /** Whether it keeps the process alive: while it opens, is leased, or closes. */
  referenced = true
  /** Whether the far side counts it: from the beginning of opening until it has let go. */
  counted = true
  readonly #onClose: ((cause: unknown) => void)[] = []

  /** @internal Connections come from `driver.open()`. */
  constructor(id: number, tag: string) {
    this.id = id
    this.tag = tag
  }

  /** Ends the connection from the far side: the pool hears of it at once. */
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
 * A driver without a server, for tests of pools: every call can be made to fail, to take its time or to hang, and it
 * counts connections as a server would, from the beginning of opening to the end of closing.
 *
 * @example
 * ```ts
 * import { Pool } from 'millpond'
 * import { FakeDriver } from 'millpond/testing'
 *
 * const driver = new FakeDriver()
 * driver.once('ping', new Error('the connection is dead'))
 * const pool = new Pool({ driver, pingAfterIdleMs: 0 })
 * await pool.use((connection) => connection.id) // => 1
 * await pool.use((connection) => connection.id) // => 2, since the first one failed its ping
 * await pool.close()
 * driver.calls // => ['open 1', 'ping 1', 'close 1', 'open 2', 'close 2']
 * ```
 */
export class FakeDriver implements Driver<FakeConnection> {
  /** What each call does from now on. */
  readonly behaviour: Record<FakeCall, Behaviour> = { open: 'ok', close: 'ok', ping: 'ok', reset: 'ok' }
  /** Every connection whose opening has begun, oldest first. */
  readonly connections: FakeConnection[] = []
  /** Every call so far, oldest first. Empty it when you like: `driver.calls.length = 0`. */
  readonly calls: RecordedCall[] = []
  /** The most that were counted at once. */
  peak = 0
  /** Makes sure of ends that nobody saw; delete it to see what a pool does without. */
  reap?: NonNullable<Driver<FakeConnection>['reap']> = async (identity) => {
    this.reaped.push(identity)
    const connection = this.connections.find(({ tag }) => tag === identity.tag)
    this.calls.push(`reap ${connection?.id ?? 0}`)
    connection?.letGo()
    return true
  }
  /** Whom `reap` was asked about. */
  readonly reaped: Identity[] = []
  readonly #open = new Set<FakeConnection>()
  readonly #next: Record<FakeCall, Behaviour[]> = { open: [], close: [], ping: [], reset: [] }

  /** Connections as the far side counts them now. */
  get counted(): number {
    return this.connections.filter((connection) => connection.counted).length
  }

  /** What the next calls do, one each; after them `behaviour` says so again. */
  once(call: FakeCall, ...behaviours: Behaviour[]): void {
    this.#next[call].push(...behaviours)
  }

  /** Ends all connections from the far side, as a server does that restarts. Those that are opening are spared. */
  killAll(cause?: unknown): void {
    for (const connection of this.#open) if (connection.counted) connection.kill(cause)
  }

  async open({ tag, signal }: { signal: AbortSignal; tag: string }): Promise<FakeConnection> {
    const connection = new FakeConnection(this.connections.length + 1, tag)
    this.connections.push(connection)
    this.peak = Math.max(this.peak, this.counted)
    try {
      await this.#act('open', connection, signal)
    } catch (error) {
      connection.letGo()
      throw error
    }
    this.#open.add(connection)
    return connection
  }

  async close(connection: FakeConnection, signal?: AbortSignal): Promise<void> {
    if (connection.counted) await this.#act('close', connection, signal)
    connection.letGo()
    this.#open.delete(connection)
  }

  async ping(connection: FakeConnection, signal?: AbortSignal): Promise<void> {
    connection.pings++
    await this.#act('ping', connection, signal)
    if (connection.broken) throw new Error('the connection is broken')
  }

  needsReset(connection: FakeConnection, mode: ResetMode): boolean {
    return mode === 'full' || (mode === 'auto' && connection.dirty)
  }

  async reset(connection: FakeConnection, options?: { mode: ResetMode; signal: AbortSignal }): Promise<void> {
    connection.resets++
    await this.#act('reset', connection, options?.signal)
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

  async #act(call: FakeCall, connection: FakeConnection, signal: AbortSignal | undefined): Promise<void> {
    this.calls.push(`${call} ${connection.id}`)
    const behaviour = this.#next[call].shift() ?? this.behaviour[call]
    if (behaviour === 'never') await new Promise<never>(() => {})
    else if (behaviour === 'until aborted') await orAborted(new Promise<never>(() => {}), signal)
    else if (behaviour instanceof Error) throw behaviour
    else if (typeof behaviour === 'function') await behaviour(connection, signal)
    if (connection.unreachable) throw new Error('the connection is out of reach')
  }
}
