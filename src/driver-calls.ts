import { tell } from './channels.ts'
import type { Core } from './core.ts'
import { DeadlineError, withinDeadline } from './deadline.ts'
import type { Driver, Identity } from './driver.ts'
import { ConnectError } from './errors.ts'
import type { Lease } from './lease.ts'
import type { ResolvedOptions } from './options.ts'
import type { Permits } from './permits.ts'
import type { Slot } from './slot.ts'

const pingTimeoutMs = 2_000
export const closeConnectionTimeoutMs = 5_000
const reapTimeoutMs = 10_000
const reapPauseMs = 250

interface DriverCallsDetails<C> {
  driver: Driver<C>
  core: Core<C>
  permits: Permits
  options: ResolvedOptions
  /** Aborts when the pool stops waiting for anything that is under way. */
  stopping: AbortSignal
  /** The core has decided something: carry it out. */
  changed: () => void
  /** An attempt to connect failed in a way that retrying cannot cure. */
  incurable: (error: ConnectError) => void
  leaseFirst: () => Promise<Lease<C> | undefined>
}

/**
 * Everything a driver is asked to do, each call under its deadline, whatever the driver makes of it: throws, never
 * settles, settles late. What came of it is an event of the core.
 */
export class DriverCalls<C> {
  readonly #driver: Driver<C>
  readonly #core: Core<C>
  readonly #permits: Permits
  readonly #options: ResolvedOptions
  readonly #clock: ResolvedOptions['clock']
  readonly #stopping: AbortSignal
  readonly #changed: () => void
  readonly #incurable: (error: ConnectError) => void
  readonly #leaseFirst: () => Promise<Lease<C> | undefined>
  readonly #reapings = new Set<Promise<boolean>>()

  constructor(details: DriverCallsDetails<C>) {
    this.#driver = details.driver
    this.#core = details.core
    this.#permits = details.permits
    this.#options = details.options
    this.#clock = details.options.clock
    this.#stopping = details.stopping
    this.#changed = details.changed
    this.#incurable = details.incurable
    this.#leaseFirst = details.leaseFirst
  }

  /** A connection that nobody uses keeps no process alive. */
  rest(slot: Slot<C>): void {
    if (slot.state === 'idle') this.#driver.unref?.(slot.connection as C)
  }

  /** Cleans the session between two leases. False if that failed or took too long. */
  async reset(slot: Slot<C>, mode: 'auto' | 'full'): Promise<boolean> {
    const connection = slot.connection as C
    try {
      await withinDeadline((signal) => this.#driver.reset(connection, { mode, signal }), {
        clock: this.#clock,
        ms: this.#options.resetTimeoutMs,
      })
      return true
    } catch (cause) {
      tell('millpond:reset-error', () => ({ pool: this.#options.name, connection: slot.permit.tag, cause }))
      return false
    }
  }

  /** Connects; the core hears of the connection, or of the failure. */
  async open(slot: Slot<C>): Promise<void> {
    const startedAt = this.#clock.now()
    let connection: C
    try {
      connection = await withinDeadline((signal) => this.#driver.open({ signal, tag: slot.permit.tag }), {
        clock: this.#clock,
        ms: this.#options.connectTimeoutMs,
        signal: this.#stopping,
        // It came after all: closing it is the evidence that its permit waits for.
        late: (late) => {
          slot.connection = late
          void this.close(slot)
        },
      })
    } catch (error) {
      return this.#openFailed(slot, error)
    }
    const now = this.#clock.now()
    tell('millpond:open', () => ({
      pool: this.#options.name,
      connection: slot.permit.tag,
      durationMs: now - startedAt,
    }))
    this.#permits.opened(slot.permit, this.#driver.identity(connection))
    this.#core.opened(slot, connection, now)
    this.#driver.onClose(connection, (cause) => {
      slot.note ??= cause
      this.#core.lost(slot, this.#clock.now())
      this.#changed()
    })
    this.rest(slot)
    this.#changed()
  }

  #openFailed(slot: Slot<C>, error: unknown): void {
    const cause =
      error instanceof DeadlineError
        ? new ConnectError(`No connection within ${this.#options.connectTimeoutMs} ms`, {
            doubtful: true,
            cause: error,
          })
        : error
    tell('millpond:connect-error', () => ({ pool: this.#options.name, cause }))
    this.#core.openFailed(slot, cause, this.#clock.now())
    if (cause instanceof ConnectError && !cause.retryable) this.#incurable(cause)
    this.#changed()
  }

  /** One round trip on the way out. */
  async ping(slot: Slot<C>): Promise<void> {
    const connection = slot.connection as C
    this.#driver.ref?.(connection)
    let alive = true
    try {
      await withinDeadline((signal) => this.#driver.ping(connection, signal), {
        clock: this.#clock,
        ms: pingTimeoutMs,
      })
    } catch (cause) {
      alive = false
      slot.note ??= cause
    }
    this.#core.checked(slot, alive, this.#clock.now())
    this.rest(slot)
    this.#changed()
  }

  /** Closes, and waits for the other side to let go. */
  async close(slot: Slot<C>): Promise<void> {
    const connection = slot.connection as C
    tell('millpond:close', () => ({
      pool: this.#options.name,
      connection: slot.permit.tag,
      reason: slot.closeReason ?? 'surplus',
      cause: slot.note,
    }))
    this.#driver.ref?.(connection)
    const closed = (): void => {
      this.#core.closed(slot)
      this.#changed()
    }
    try {
      await withinDeadline((signal) => this.#driver.close(connection, signal), {
        clock: this.#clock,
        ms: closeConnectionTimeoutMs,
        signal: this.#stopping,
        late: closed,
      })
    } catch (cause) {
      const mayReap = this.#driver.reap !== undefined
      const settled = !(cause instanceof DeadlineError)
      if (!mayReap && settled) return closed()
      tell('millpond:doubtful', () => ({ pool: this.#options.name, connection: slot.permit.tag, cause }))
      this.#core.inDoubt(slot)
      this.#changed()
      return
    }
    closed()
  }

  /** Until somebody has made sure, or the pool leaves the permit to others. */
  async reapSlot(slot: Slot<C>): Promise<void> {
    const identity = slot.connection === undefined ? undefined : this.#driver.identity(slot.connection)
    while (slot.state === 'closing' && !this.#stopping.aborted && this.#driver.reap) {
      if (await this.reap(identity ?? { pid: 0, secret: 0, tag: slot.permit.tag })) {
        this.#core.closed(slot)
        this.#changed()
        return
      }
      await new Promise<void>((resolve) => {
        this.#clock.setTimer(resolve, reapPauseMs, false)
      })
    }
  }

  /** Has somebody make sure of a session whose end nobody saw. False if that could not be done now. */
  reap(identity: Identity): Promise<boolean> {
    const reaping = this.#reap(identity)
    this.#reapings.add(reaping)
    return reaping.finally(() => this.#reapings.delete(reaping))
  }

  /** Resolves when nothing is being reaped any more. A reaper may have a connection of its own. */
  async reaped(): Promise<void> {
    await Promise.allSettled(this.#reapings)
  }

  async #reap(identity: Identity): Promise<boolean> {
    const driver = this.#driver
    if (!driver.reap) return false
    const via = await this.#leaseFirst()
    try {
      return await withinDeadline(
        async (signal) => (await driver.reap?.(identity, { via: via?.connection, signal })) ?? false,
        {
          clock: this.#clock,
          ms: reapTimeoutMs,
          signal: this.#stopping,
          keepAlive: false,
        },
      )
    } catch (cause) {
      tell('millpond:doubtful', () => ({ pool: this.#options.name, connection: identity.tag, cause }))
      return false
    } finally {
      await via?.release()
    }
  }
}
