import { LeaseReleasedError, LeaseRevokedError } from './errors.ts'
import { state } from './slot.ts'
import type { Slot } from './slot.ts'

/** Whom a lease goes back to. */
export interface Lessor<C> {
  readonly name: string
  now(): number
  release(slot: Slot<C>, uses: number): Promise<void>
  destroy(slot: Slot<C>, uses: number, reason: string | undefined): Promise<void>
  isSpent(slot: Slot<C>): boolean
  isOwed(slot: Slot<C>): boolean
}

/** For threads whose event loop stops when a task has ended: all is given back only when `quiet` has resolved. */
export function whenQuiet<C>(lessor: Lessor<C>, quiet: () => Promise<void>): Lessor<C> {
  return {
    ...lessor,
    release: (slot, uses) => lessor.release(slot, uses).then(quiet),
    destroy: (slot, uses, reason) => lessor.destroy(slot, uses, reason).then(quiet),
  }
}

const done: Promise<void> = Promise.resolve()

/**
 * One connection, yours alone until you release it.
 *
 * @example
 * ```ts
 * import { Pool } from 'millpond'
 * import { FakeDriver } from 'millpond/testing'
 *
 * const pool = new Pool({ driver: new FakeDriver() })
 * {
 *   await using lease = await pool.acquire()
 *   console.log(lease.connection.id)
 * } // released here, also when something threw
 * await pool.close()
 * ```
 */
export class Lease<C> implements AsyncDisposable {
  readonly #lessor: Lessor<C>
  readonly #slot: Slot<C>
  readonly #uses: number
  #released = false

  /** @internal Leases come from `pool.acquire()`. */
  constructor(lessor: Lessor<C>, slot: Slot<C>) {
    this.#lessor = lessor
    this.#slot = slot
    this.#uses = slot.uses
  }

  /** The driver's connection. Throws `LeaseReleasedError` after the release, `LeaseRevokedError` if it was taken away. */
  get connection(): C {
    if (this.#released) throw new LeaseReleasedError(this.#lessor.name)
    const { connection, closeReason, leasedAt, uses } = this.#slot
    if (closeReason === 'revoked' && uses === this.#uses) {
      throw new LeaseRevokedError(this.#lessor.name, this.#lessor.now() - leasedAt, 'the pool was closed')
    }
    return connection as C
  }

  /** @internal Which connection it is of, since when, and where it was acquired if that was noted. */
  get origin(): { tag: string; since: number; acquiredAt: string | undefined } {
    const { permit, leasedAt, trace } = this.#slot
    return { tag: permit.tag, since: leasedAt, acquiredAt: trace?.stack }
  }

  /** @internal Whether the connection lives on, after the release too. */
  get lives(): boolean {
    const at = this.#slot.state
    return at !== state.closing && at !== state.gone
  }

  /** @internal Whether the connection would be closed instead of lent again, if it were released now, for what it is … */
  get isSpent(): boolean {
    return this.#released || !this.lives || this.#lessor.isSpent(this.#slot)
  }

  /** @internal … or because somebody elsewhere is worse off. Not for every query: it may look at all who share the limit. */
  get isOwed(): boolean {
    return this.#lessor.isOwed(this.#slot)
  }

  /** @internal The connection serves one caller more: to `maxUses`, that is a use. */
  share(): void {
    this.#slot.shared++
  }

  /** @internal It is meant to be held for as long as it takes: no leak. */
  keep(): void {
    if (!this.#released) this.#slot.leaked = true
  }

  /** Whether `release()` or `destroy()` has been called. */
  get released(): boolean {
    return this.#released
  }

  /**
   * Gives the connection back. Waits while its session is cleaned, which is at once if there is nothing to clean;
   * never rejects: a connection that cannot be cleaned is closed and replaced. A second call does nothing.
   */
  release(): Promise<void> {
    if (this.#released) return done
    this.#released = true
    return this.#lessor.release(this.#slot, this.#uses)
  }

  /**
   * Gives the connection back to be closed, for example after an error that it will not recover from. Resolves at
   * once; `reason` is for those who watch.
   */
  destroy(reason?: string): Promise<void> {
    if (this.#released) return done
    this.#released = true
    return this.#lessor.destroy(this.#slot, this.#uses, reason)
  }

  /** Same as `release()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}
