import { Backoff } from '../backoff.ts'
import type { Clock, Timer } from '../clock.ts'
import { DeadlineError, heed, withinDeadline } from '../deadline.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import type { Identity } from '../driver.ts'
import { ConnectionLostError, PoolClosedError, messageOf } from '../errors.ts'
import type { Lease } from '../lease.ts'
import type { AcquireOptions } from '../pool.ts'
import type { Watch } from '../watch.ts'
import { outsideAll } from './ambient.ts'
import type { Connection } from './connection.ts'
import { checkListen, quoted } from './listen-options.ts'
import type { ListenOptions, OnNotification } from './listen-options.ts'

/** How long a LISTEN or a sign of life may take. */
const answerMs = 5_000
/** A connection on which nothing is sent would not notice that the other side has gone. */
const checkEveryMs = 30_000
/** An attempt to listen again that waits for ever would keep the process alive as long. */
const longestAttemptMs = 30_000

/** What a pool gives its listeners. */
export interface ListenHouse {
  readonly pool: string
  readonly clock: Clock
  readonly watch: Watch
  readonly acquireTimeoutMs: number
  acquire(options: AcquireOptions): Promise<Lease<Connection>>
  /** Counts the connection to the pool's `min`, or not any more. Throws where the limit has no room for it. */
  reserve(on: boolean): void
}

/**
 * A listener of one channel, from `pool.listen()`.
 *
 * @example
 * ```ts
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL)
 * {
 *   await using listener = await pool.listen('orders', (payload) => console.log('order', payload))
 *   await pool.sql.notify(listener.channel, '7')
 * } // unlistened here
 * await pool.close()
 * ```
 */
export class PostgresListener implements AsyncDisposable {
  readonly channel: string
  readonly #unlisten: () => Promise<void>

  /** @internal Listeners come from `pool.listen()`. */
  constructor(channel: string, unlisten: () => Promise<void>) {
    this.channel = channel
    this.#unlisten = unlisten
  }

  /**
   * Ends it at once: its function is not called any more. Resolves when the server has been told, if nobody else of the
   * pool listens on the channel; never rejects. A second call does nothing.
   */
  unlisten(): Promise<void> {
    return this.#unlisten()
  }

  /** Same as `unlisten()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#unlisten()
  }
}

/** A session, as postgres.js shows it. */
export interface SessionState {
  readonly pid: number
  readonly secret: number
}

/** One who listens. */
interface Entry {
  readonly channel: string
  readonly fn: OnNotification
  readonly options: ListenOptions
  /** Settles when the server listens for it, or will not. */
  readonly ready: Deferred<void>
  /** The server has listened for it. */
  heard: boolean
  /** Stops looking at its signal. */
  off: () => void
}

interface Session {
  readonly lease: Lease<Connection>
  readonly connection: Connection
  /** The channels on which the server listens. */
  readonly channels: Set<string>
}

/**
 * All listeners of one pool, on one connection, which is a lease that lasts as long as they do.
 *
 * State
 *   entries   who wants to listen, by channel
 *   session   the connection, and what it listens on; undefined if there is none
 *   gap       since when there is none although somebody (`missed`) has been heard before, and why
 *   retry     the pause after a failure
 *
 * What is to be done is found by looking at these (`#round`): any event sets `changed`, and one worker looks again until
 * nothing has changed. A failure rejects those who have not been heard yet; the others stay, and it is tried again.
 */
export class Listening {
  readonly #house: ListenHouse
  readonly #entries = new Map<string, Set<Entry>>()
  readonly #backoff = new Backoff(Math.random)
  #session: Session | undefined
  /** That of the last session there was. */
  #identity: Identity | undefined
  #gap: { readonly since: number; readonly cause: unknown; missed: readonly Entry[] } | undefined
  #reserved = false
  #closed = false
  #changed = false
  /** The connection was left in the course of the worker's round. */
  #renewed = false
  /** Resolves when the worker has nothing to do any more; undefined while there is no worker. */
  #working: Deferred<void> | undefined
  #acquiring: AbortController | undefined
  #retry: Timer | undefined
  #check: Timer | undefined

  constructor(house: ListenHouse) {
    this.#house = house
  }

  async listen(channel: string, fn: OnNotification, options: ListenOptions): Promise<PostgresListener> {
    checkListen(channel, fn, options)
    const { signal } = options
    signal?.throwIfAborted()
    if (this.#closed) throw new PoolClosedError(this.#house.pool)
    const entry: Entry = { channel, fn, options, ready: deferred(), heard: false, off: nothing }
    const onAbort = (): void => void this.#leave(entry, signal?.reason)
    if (signal) heed(signal, onAbort)
    entry.off = () => signal?.removeEventListener('abort', onAbort)
    const others = this.#entries.get(channel)
    if (others) others.add(entry)
    else this.#entries.set(channel, new Set([entry]))
    this.#settle()
    await entry.ready.promise
    return new PostgresListener(channel, () => this.#leave(entry))
  }

  /** The session that listens, as postgres.js shows it: also the next one, to whoever keeps this. */
  get state(): SessionState {
    const identity = (): Identity | undefined => this.#identity
    return {
      get pid() {
        return identity()?.pid ?? 0
      },
      get secret() {
        return identity()?.secret ?? 0
      },
    }
  }

  /** Leaves the connection for a new one, as after a loss. */
  renew(): void {
    this.#renewed = true
    if (this.#session) this.#drop(this.#session, new Error('the pool was evicted'))
  }

  /** Ends all listeners. */
  close(): void {
    this.#closed = true
    const error = new PoolClosedError(this.#house.pool)
    for (const entry of this.#all()) this.#remove(entry, error)
    this.#settle()
  }

  // ── Who listens ────────────────────────────────────────────────────────────────────────────────────────────────

  /** All of this moment, whoever joins or leaves meanwhile. */
  #all(): Entry[] {
    return Array.from(this.#entries.values(), (entries) => [...entries]).flat()
  }

  /** Resolves when the server has been told. */
  async #leave(entry: Entry, reason?: unknown): Promise<void> {
    if (!this.#remove(entry, reason)) return
    this.#settle()
    // Without a connection the server hears nothing.
    if (this.#session) await this.#working?.promise
  }

  #remove(entry: Entry, reason: unknown): boolean {
    const entries = this.#entries.get(entry.channel)
    if (!entries?.delete(entry)) return false
    if (entries.size === 0) this.#entries.delete(entry.channel)
    entry.off()
    entry.ready.reject(reason)
    return true
  }

  #deliver(channel: string, payload: string): void {
    const entries = Array.from(this.#entries.get(channel) ?? [])
    for (const { fn } of entries) this.#call(channel, () => fn(payload, channel))
  }

  /** What a listener throws is told, and harms nobody. */
  #call(channel: string, fn: () => unknown): void {
    const failed = (cause: unknown): void => {
      const { watch, pool } = this.#house
      if (watch.hears('millpond:listener-error')) {
        watch.tell('millpond:listener-error', () => ({ channel, cause }))
        return
      }
      const text = `A listener of "${pool}" on the channel "${channel}" threw: ${messageOf(cause)}`
      process.emitWarning(text, 'MillpondWarning')
    }
    try {
      Promise.resolve(fn()).catch(failed)
    } catch (cause) {
      failed(cause)
    }
  }

  // ── The worker ─────────────────────────────────────────────────────────────────────────────────────────────────

  #settle(): void {
    this.#changed = true
    if (this.#entries.size === 0) this.#acquiring?.abort()
    if (this.#working) return
    this.#working = deferred()
    // Whose connections report outside of transactions, by themselves; who joins may be in one.
    void outsideAll(() => this.#work())
  }

  async #work(): Promise<void> {
    // Whoever caused this may be in the middle of reading what the connection has received.
    await Promise.resolve()
    while (this.#changed) {
      this.#changed = false
      this.#renewed = false
      try {
        await this.#round()
      } catch (error) {
        // What was under way then has not failed: it begins again.
        if (this.#renewed) this.#changed = true
        else this.#failed(error)
      }
    }
    if (this.#session) this.#hold(this.#session, this.#keepsAlive)
    this.#working?.resolve()
    this.#working = undefined
  }

  /** Does what is to be done. Who joins or leaves meanwhile is seen in the next round. */
  async #round(): Promise<void> {
    if (this.#entries.size === 0) return this.#end()
    if (this.#backoff.until > this.#house.clock.now()) return this.#retryLater()
    const session = this.#session ?? (await this.#begin())
    if (!session) return
    this.#hold(session, true)
    for (const channel of session.channels) {
      if (this.#entries.has(channel)) continue
      await ask(session, `unlisten ${quoted(channel)}`, this.#house.clock)
      session.channels.delete(channel)
    }
    for (const channel of this.#entries.keys()) await this.#listenOn(session, channel)
    if (this.#session === session) this.#listens(session)
  }

  async #listenOn(session: Session, channel: string): Promise<void> {
    if (!session.channels.has(channel)) {
      try {
        await ask(session, `listen ${quoted(channel)}`, this.#house.clock)
      } catch (error) {
        const entries = [...(this.#entries.get(channel) ?? [])]
        if (session.connection.isLost || entries.some(({ heard }) => heard)) throw error
        // The server will not, and nobody relies on it yet.
        for (const entry of entries) this.#remove(entry, error)
        this.#changed = true
        return
      }
      session.channels.add(channel)
    }
    for (const entry of this.#entries.get(channel) ?? []) {
      entry.heard = true
      entry.ready.resolve()
    }
  }

  /** The server listens on all channels. */
  #listens(session: Session): void {
    const { clock, watch } = this.#house
    this.#backoff.reset()
    const gap = this.#gap
    this.#gap = undefined
    if (this.#check && !gap) return
    this.#checkLater(session)
    const gapMs = gap ? clock.now() - gap.since : 0
    const { size } = session.channels
    watch.tell('millpond:listen', () => ({ connection: session.connection.identity.tag, channels: size, gapMs }))
    for (const entry of gap?.missed ?? []) {
      const { channel, options } = entry
      if (!this.#entries.get(channel)?.has(entry)) continue
      this.#call(channel, () => options.onGap?.({ channel, gapMs, cause: gap?.cause }))
    }
  }

  /** A connection to listen on; undefined if nobody wants one any more. */
  async #begin(): Promise<Session | undefined> {
    const acquiring = new AbortController()
    this.#acquiring = acquiring
    const timeoutMs = Math.min(this.#house.acquireTimeoutMs, longestAttemptMs)
    let lease: Lease<Connection>
    try {
      lease = await this.#house.acquire({ signal: acquiring.signal, timeoutMs })
    } catch (error) {
      if (!acquiring.signal.aborted) throw error
      this.#changed = true
      return undefined
    } finally {
      this.#acquiring = undefined
    }
    try {
      this.#reserve(true)
    } catch (error) {
      await lease.release()
      throw error
    }
    lease.keep()
    const { connection } = lease
    this.#identity = connection.identity
    const session = { lease, connection, channels: new Set<string>() }
    this.#session = session
    connection.hearing = {
      notified: (channel, payload) => this.#deliver(channel, payload),
      lost: (cause) => this.#drop(session, cause),
    }
    return session
  }

  /** Nobody listens any more: the connection goes back. */
  async #end(): Promise<void> {
    this.#retry?.cancel()
    this.#backoff.reset()
    this.#gap = undefined
    const session = this.#session
    if (session) {
      this.#part(session)
      try {
        if (!this.#closed) await ask(session, 'unlisten *', this.#house.clock)
        await session.lease.release()
      } catch {
        await session.lease.destroy('UNLISTEN failed')
      }
    }
    if (this.#entries.size === 0) this.#reserve(false)
  }

  #reserve(on: boolean): void {
    if (this.#reserved === on || this.#closed) return
    this.#house.reserve(on)
    this.#reserved = on
  }

  // ── When something fails ───────────────────────────────────────────────────────────────────────────────────────

  /** The connection is of no use any more. */
  #drop(session: Session, cause: unknown): void {
    if (this.#session !== session) return
    this.#part(session)
    void session.lease.destroy('it does not listen any more')
    const { clock, watch } = this.#house
    const missed = this.#all().filter(({ heard }) => heard)
    if (this.#gap) this.#gap.missed = missed
    else if (missed.length > 0) this.#gap = { since: clock.now(), cause, missed }
    watch.tell('millpond:listen-lost', () => ({ connection: session.connection.identity.tag, cause }))
    this.#settle()
  }

  /** From here on nothing of it is heard. */
  #part(session: Session): void {
    this.#session = undefined
    this.#check?.cancel()
    this.#check = undefined
    session.connection.hearing = undefined
    // It goes back as it came.
    this.#hold(session, true)
  }

  #failed(cause: unknown): void {
    if (this.#session) this.#drop(this.#session, cause)
    for (const entry of this.#all()) if (!entry.heard) this.#remove(entry, cause)
    this.#changed = true
    if (this.#entries.size === 0) return
    this.#house.watch.tell('millpond:listen-error', () => ({ cause }))
    this.#backoff.failed(cause, this.#backoff.round, this.#house.clock.now())
  }

  #retryLater(): void {
    const { clock } = this.#house
    this.#retry?.cancel()
    this.#retry = clock.setTimer(() => this.#settle(), this.#backoff.until - clock.now(), this.#keepsAlive)
  }

  // ── While all is well ──────────────────────────────────────────────────────────────────────────────────────────

  #checkLater(session: Session): void {
    const { clock } = this.#house
    this.#check?.cancel()
    this.#check = clock.setTimer(() => void this.#checkNow(session), checkEveryMs, false)
  }

  async #checkNow(session: Session): Promise<void> {
    try {
      await ask(session, '', this.#house.clock, this.#keepsAlive)
      if (this.#session === session) this.#checkLater(session)
    } catch (error) {
      this.#drop(session, error)
    }
  }

  get #keepsAlive(): boolean {
    return this.#all().some(({ options }) => options.keepAlive === true)
  }

  #hold({ connection }: Session, on: boolean): void {
    if (on) connection.ref()
    else connection.unref()
  }
}

/** A statement of the pool's own: it leaves no traces for a reset to see. */
async function ask({ connection }: Session, text: string, clock: Clock, keepAlive = true): Promise<void> {
  try {
    const told = text !== ''
    await withinDeadline((signal) => connection.askTask(text, { signal, told }).answer, {
      clock,
      ms: answerMs,
      keepAlive,
    })
  } catch (error) {
    throw error instanceof DeadlineError ? new ConnectionLostError(error) : error
  }
}

function nothing(): void {}
