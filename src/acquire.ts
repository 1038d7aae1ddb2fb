import type { Clock, Timer } from './clock.ts'
import { deferred } from './deferred.ts'
import type { Deferred } from './deferred.ts'
import type { Holding } from './holding.ts'
import type { Lease } from './lease.ts'
import type { Slot } from './slot.ts'
import { Waiter } from './waiters.ts'

interface AcquireDetails<C> {
  clock: Clock
  now: number
  timeoutMs: number
  signal: AbortSignal | undefined
  lend: (slot: Slot<C>, waitedMs: number) => Lease<C>
  timeOut: (waiter: Waiter<Slot<C>>, held: Holding | undefined) => void
  /** Whether the waiter was still unanswered. */
  abort: (waiter: Waiter<Slot<C>>) => boolean
  /** The lease of the same pool that the caller holds already. */
  held: Holding | undefined
}

/** A timer that fires this much late speaks of a blocked event loop, behind which the answer may be waiting already. */
const lateMs = 20

/** One queued acquire as its caller sees it: a promise, a deadline and a signal around a waiter. */
export class Acquire<C> {
  readonly waiter: Waiter<Slot<C>>
  readonly #details: AcquireDetails<C>
  readonly #lease: Deferred<Lease<C>> = deferred()
  #timer: Timer | undefined

  constructor(details: AcquireDetails<C>) {
    this.#details = details
    this.waiter = new Waiter<Slot<C>>(details.now, details.now + details.timeoutMs, {
      serve: (slot) => {
        this.#disarm()
        this.#lease.resolve(details.lend(slot, details.clock.now() - details.now))
      },
      fail: (error) => {
        this.#disarm()
        this.#lease.reject(error)
      },
      expire: () => details.timeOut(this.waiter, details.held),
    })
  }

  get promise(): Promise<Lease<C>> {
    return this.#lease.promise
  }

  /** Starts to watch deadline and signal. */
  arm(): void {
    if (this.waiter.state !== 'waiting') return
    const { clock, timeoutMs, signal } = this.#details
    signal?.addEventListener('abort', this.#onAbort, { once: true })
    // With 0 there is nothing left to wait for but a ping, which has a deadline of its own.
    if (timeoutMs !== Infinity && timeoutMs !== 0) this.#timer = clock.setTimer(this.#onDeadline, timeoutMs)
  }

  readonly #onDeadline = (): void => {
    const { clock, timeOut, held } = this.#details
    const late = clock.now() - this.waiter.deadlineAt > lateMs
    if (late) this.#timer = clock.setTimer(() => timeOut(this.waiter, held), 0)
    else timeOut(this.waiter, held)
  }

  readonly #onAbort = (): void => {
    this.#disarm()
    // Served, but not told yet: the lease is the caller's, and would be nobody's otherwise.
    if (this.#details.abort(this.waiter)) this.#lease.reject(this.#details.signal?.reason)
  }

  #disarm(): void {
    this.#timer?.cancel()
    this.#details.signal?.removeEventListener('abort', this.#onAbort)
  }
}
