import { messageOf } from '../errors.ts'
import { Life } from './server-life.ts'
import type { LifeOptions } from './server-life.ts'
import { tell } from './server-events.ts'

const firstPauseMs = 100
const longestPauseMs = 5_000
/** A server that has lived so long is not one that keeps failing. */
const soundAfterMs = 10_000
/** Restarts are counted within this time. */
const windowMs = 60_000

export interface SeatOptions extends Pick<LifeOptions, 'data' | 'desk' | 'startTimeoutMs'> {
  readonly maxRestarts: number
  /** The time that a server gets to stop for another one. */
  readonly stopTimeoutMs: number
  /** Called whenever `state` has changed. */
  readonly onChange: () => void
}

/** How one thread of a server is. */
export type ServerState = 'new' | 'starting' | 'ready' | 'restarting' | 'failed' | 'stopping'

/**
 * The place of one thread of a server, in which one life follows the other.
 *
 * State
 *   new → starting   the first life begins; `start()` waits for it
 *   ready            its `start` has resolved
 *   restarting       its life has ended by itself: another one follows after a pause that doubles while lives are short
 *   failed           too many lives have ended within a minute; only `reload()` begins another one
 *   stopping         the last life is to end; no other follows
 *
 *   life             the current one; its thread may have ended
 *   next             in a reload the one that is to be ready before the current one is stopped
 */
export class Seat {
  readonly #options: SeatOptions
  #state: ServerState = 'new'
  #life: Life | undefined
  #next: Life | undefined
  #restart: NodeJS.Timeout | undefined
  /** When lives have ended by themselves, within the window. */
  #ends: number[] = []
  #shortLives = 0
  /** How often it was started again since its beginning. */
  restarts = 0
  /** What it said about where it listens. */
  address: unknown

  constructor(options: SeatOptions) {
    this.#options = options
  }

  get name(): string {
    return this.#options.data.name
  }

  get index(): number {
    return this.#options.data.index
  }

  get state(): ServerState {
    return this.#state
  }

  /** That of the current life. */
  get threadId(): number | undefined {
    return this.#life?.hasEnded === false ? this.#life.threadId : undefined
  }

  get aliveMs(): number {
    return this.#life?.hasEnded === false ? performance.now() - this.#life.startedAt : 0
  }

  /** Resolves when the server's `start` has; rejects with what it threw, or `WorkerLostError`. */
  async start(): Promise<void> {
    this.#move('starting')
    const life = this.#begin()
    this.#life = life
    await life.ready
    // One that has ended since was told to, or has been started again.
    if (this.#state === 'starting') this.#move(life.hasEnded ? 'restarting' : 'ready')
    if (this.#state === 'restarting') this.#again(life.cause)
  }

  /**
   * Begins another life and ends the current one when the other is ready. Rejects with the reason if it does not get
   * ready; the current one goes on then.
   */
  async reload(): Promise<void> {
    if (this.#isStopping()) return
    const from = this.#life
    clearTimeout(this.#restart)
    // The limit has no room for what both of them keep.
    await from?.keep('none')
    if (this.#isStopping()) return
    const next = this.#begin()
    this.#next = next
    try {
      await next.ready
    } catch (error) {
      this.#next = undefined
      if (this.#isStopping()) return
      await from?.keep('min')
      if (from?.hasEnded && this.#state !== 'failed') this.#again(error)
      throw error
    }
    this.#next = undefined
    if (this.#isStopping()) return
    this.#life = next
    this.#ends = []
    this.#shortLives = 0
    this.#move('ready')
    tell(this.name, this.index, 'millpond:server-reload', { threadId: next.threadId, from: from?.threadId })
    if (next.hasEnded) this.#again(next.cause)
    await from?.stop(this.#options.stopTimeoutMs)
  }

  /** Lets the server finish; ends its thread when the deadline comes. */
  async stop(timeoutMs: number, deadline: Promise<void>): Promise<void> {
    this.#move('stopping')
    clearTimeout(this.#restart)
    await Promise.all([this.#life?.stop(timeoutMs, deadline), this.#next?.stop(timeoutMs, deadline)])
  }

  #move(to: ServerState): void {
    this.#state = to
    this.#options.onChange()
  }

  #isStopping(): boolean {
    return this.#state === 'stopping'
  }

  #begin(): Life {
    const { data, desk, startTimeoutMs } = this.#options
    const life: Life = new Life({
      data,
      desk,
      startTimeoutMs,
      onAddress: (address) => {
        this.address = address
      },
      onFailed: (error) => {
        if (this.#isStopping()) this.#warn(`did not stop as it should: ${messageOf(error)}`)
      },
      onExit: () => this.#ended(life),
    })
    const { threadId, startedAt } = life
    tell(this.name, this.index, 'millpond:server-start', { threadId })
    life.ready.then(
      () =>
        tell(this.name, this.index, 'millpond:server-ready', { threadId, durationMs: performance.now() - startedAt }),
      () => undefined,
    )
    return life
  }

  #ended(life: Life): void {
    const { threadId, isStopping: expected, startedAt, cause } = life
    const livedMs = performance.now() - startedAt
    tell(this.name, this.index, 'millpond:server-exit', { threadId, expected, livedMs, cause })
    if (life !== this.#life || this.#next || expected) return
    if (this.#state === 'ready' || this.#state === 'restarting') this.#again(cause)
  }

  /** After an end that nobody asked for. */
  #again(cause: unknown): void {
    const { maxRestarts } = this.#options
    const now = performance.now()
    const livedMs = now - (this.#life?.startedAt ?? now)
    this.#shortLives = livedMs > soundAfterMs ? 0 : this.#shortLives + 1
    this.#ends = [...this.#ends.filter((at) => now - at < windowMs), now]
    const why = cause === undefined ? '' : ` (${messageOf(cause)})`
    if (this.#ends.length > maxRestarts) {
      this.#move('failed')
      this.#warn(`ended ${this.#ends.length} times within a minute${why}; it is not started again`)
      tell(this.name, this.index, 'millpond:server-failed', { restarts: this.restarts, cause })
      return
    }
    this.#move('restarting')
    this.#warn(`ended${why}; it is started again`)
    const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.max(0, this.#shortLives - 1))
    tell(this.name, this.index, 'millpond:server-restart', { pauseMs, restarts: ++this.restarts })
    this.#restart = setTimeout(() => {
      const life = this.#begin()
      this.#life = life
      life.ready.then(
        () => {
          if (this.#life === life && this.#state === 'restarting' && !life.hasEnded) this.#move('ready')
        },
        () => undefined,
      )
    }, pauseMs)
  }

  /** For what nobody waits to hear. */
  #warn(what: string): void {
    process.emitWarning(`Server "${this.name}" (${this.index}) ${what}`, 'MillpondWarning')
  }
}
