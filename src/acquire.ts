import { heed } from './deadline.ts'
import type { Due, Expiry } from './expiry.ts'
import { heldBy } from './holding.ts'
import type { Holding } from './holding.ts'
import type { Lease } from './lease.ts'
import type { Slot } from './slot.ts'
import { Waiter } from './waiters.ts'

/** The pool, as its queued acquires see it. */
export interface Acquirer<C> {
  readonly expiry: Expiry
  lend(slot: Slot<C>, queuedAt: number, trace: Error | undefined): Lease<C>
  timeOut(acquire: Acquire<C>): void
  /** Whether the waiter was still unanswered. */
  abort(waiter: Waiter<Slot<C>>): boolean
  /** Calls back when nothing is left behind of one that was given up. Undefined: at once. */
  readonly givenUp?: ((fn: () => void) => void) | undefined
}

interface Details {
  readonly now: number
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
  readonly trace: Error | undefined
}

/** One queued acquire as its caller sees it: a promise, a deadline and a signal. There may be very many. */
export class Acquire<C> extends Waiter<Slot<C>> {
  readonly timeoutMs: number
  readonly promise: Promise<Lease<C>>
  /** The lease of the same pool that the caller holds already. */
  readonly held: Holding | undefined
  /** What the connection is for, where its caller may get that in another way (`Pool.firstWaiting`). */
  wanted: object | undefined
  readonly #pool: Acquirer<C>
  readonly #signal: AbortSignal | undefined
  readonly #trace: Error | undefined
  #resolve!: (lease: Lease<C>) => void
  #reject!: (error: unknown) => void
  #due: Due | undefined

  constructor(pool: Acquirer<C>, { now, timeoutMs, signal, trace }: Details) {
    super(now, now + timeoutMs)
    this.#pool = pool
    this.timeoutMs = timeoutMs
    this.#signal = signal
    this.#trace = trace
    this.held = heldBy(pool)
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve
      const { givenUp } = pool
      this.#reject = givenUp ? (error) => givenUp(() => reject(error)) : reject
    })
  }

  serve(slot: Slot<C>): void {
    this.#disarm()
    this.#resolve(this.#pool.lend(slot, this.queuedAt, this.#trace))
  }

  /** Its caller has something else. The promise never settles. */
  spare(): void {
    this.#disarm()
  }

  fail(error: unknown): void {
    this.#disarm()
    this.#reject(error)
  }

  expire(): void {
    this.#pool.timeOut(this)
  }

  /** Starts to watch deadline and signal. */
  arm(): void {
    if (this.state !== 'waiting') return
    if (this.#signal) heed(this.#signal, this)
    // With 0 there is nothing left to wait for but a ping, which has a deadline of its own.
    const { timeoutMs } = this
    if (timeoutMs === Infinity || timeoutMs === 0) return
    this.#due = this.#pool.expiry.add(this)
  }

  /** The signal has aborted. */
  handleEvent(): void {
    this.leave(this.#signal?.reason)
  }

  /** The caller does not want it any more. */
  leave(reason: unknown): void {
    this.#takeOut()
    // Served, but not told yet: the lease is the caller's, and would be nobody's otherwise.
    if (this.#pool.abort(this)) this.#reject(reason)
  }

  #takeOut(): void {
    if (this.#due) this.#pool.expiry.remove(this.#due)
  }

  #disarm(): void {
    this.#takeOut()
    this.#signal?.removeEventListener('abort', this)
  }
}
