import type { Core } from './core.ts'
import { DeadlineError, orAborted, withinDeadline } from './deadline.ts'
import type { Driver, Identity } from './driver.ts'
import { ConnectError, messageOf } from './errors.ts'
import type { Lease } from './lease.ts'
import type { Hooks, ResolvedOptions } from './options.ts'
import type { Permits } from './permits.ts'
import type { Refs } from './refs.ts'
import { state } from './slot.ts'
import type { Slot } from './slot.ts'
import type { Watch } from './watch.ts'

const pingTimeoutMs = 2_000
const longestAskMs = 30_000
export const closeConnectionTimeoutMs = 5_000
const reapTimeoutMs = 10_000
/** With the time that it has to notice its deadline, and to end its own connection. */
const longestReapMs = 15_000
const reapPauseMs = 250
const barePauseMs = 1_000

interface DriverCallsDetails<C> {
  driver: Driver<C>
  hooks: Hooks<C>
  refs: Refs<C>
  core: Core<C>
  permits: Permits
  options: ResolvedOptions
  watch: Watch
  /** Aborts when the pool stops waiting for connections that open … */
  opening: AbortSignal
  /** … and for anything that is under way. */
  stopping: AbortSignal
  /** The core has decided something: carry it out. */
  changed: () => void
  /** An attempt to connect failed in a way that retrying cannot cure. */
  incurable: (error: ConnectError) => void
  leaseFirst: () => Promise<Lease<C> | undefined>
}

/**
 * Everything a driver and the hooks are asked to do, each call under its deadline, whatever they make of it: throw,
 * never settle, settle late. What came of it is an event of the core.
 */
export class DriverCalls<C> {
  readonly #driver: Driver<C>
  readonly #hooks: Hooks<C>
  readonly #refs: Refs<C>
  readonly #core: Core<C>
  readonly #permits: Permits
  readonly #options: ResolvedOptions
  readonly #clock: ResolvedOptions['clock']
  readonly #watch: Watch
  readonly #opening: AbortSignal
  readonly #stopping: AbortSignal
  readonly #changed: () => void
  readonly #incurable: (error: ConnectError) => void
  readonly #leaseFirst: () => Promise<Lease<C> | undefined>
  readonly #reapings = new Set<Promise<boolean>>()
  /** Until then, reaping uses none of the pool's own connections. */
  #bareUntil = -Infinity
  /** Somebody reaps with a connection of its own. */
  #reapsBare = false
  readonly #closings = new Map<Slot<C>, Promise<void>>()
  readonly #openings = new Set<Promise<void>>()

  constructor(details: DriverCallsDetails<C>) {
    this.#driver = details.driver
    this.#hooks = details.hooks
    this.#refs = details.refs
    this.#core = details.core
    this.#permits = details.permits
    this.#options = details.options
    this.#clock = details.options.clock
    this.#watch = details.watch
    this.#opening = details.opening
    this.#stopping = details.stopping
    this.#changed = details.changed
    this.#incurable = details.incurable
    this.#leaseFirst = details.leaseFirst
  }

  // ── Releasing ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Whether a connection is of no use any more. A driver that cannot say so has none of use. */
  isBroken(connection: C): boolean {
    try {
      return this.#driver.isBroken(connection)
    } catch {
      return true
    }
  }

  /** Whether a release has anything to wait for. */
  needsReset(connection: C): boolean {
    try {
      return this.#hooks.onRelease !== undefined || this.#isDirty(connection)
    } catch {
      // The reset asks again, and fails.
      return true
    }
  }

  /** Cleans the session between two leases. False if that failed or took too long. */
  async reset(slot: Slot<C>): Promise<boolean> {
    const connection = slot.permit.tag
    const startedAt = this.#clock.now()
    try {
      await withinDeadline((signal) => this.#clean(slot.connection as C, signal), {
        clock: this.#clock,
        ms: this.#options.resetTimeoutMs,
      })
    } catch (cause) {
      this.#watch.tell('millpond:reset-error', () => ({ connection, cause }))
      return false
    }
    this.#watch.tell('millpond:reset', () => ({ connection, durationMs: this.#clock.now() - startedAt }))
    return true
  }

  async #clean(connection: C, signal: AbortSignal): Promise<void> {
    const { onRelease } = this.#hooks
    if (this.#isDirty(connection)) await this.#driver.reset(connection, { mode: this.#options.reset, signal })
    if (onRelease && (await orAborted(Promise.resolve(onRelease(connection)), signal)) === false)
      throw new Error('onRelease refused it')
  }

  #isDirty(connection: C): boolean {
    const { reset } = this.#options
    return reset !== 'none' && (this.#driver.needsReset?.(connection, reset) ?? true)
  }

  // ── Opening ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Connects; the core hears of the connection, or of the failure. */
  open(slot: Slot<C>): Promise<void> {
    const opening = this.#open(slot)
    this.#openings.add(opening)
    return opening.finally(() => this.#openings.delete(opening))
  }

  async #open(slot: Slot<C>): Promise<void> {
    const { tag } = slot.permit
    const startedAt = this.#clock.now()
    let connection: C
    try {
      connection = await withinDeadline((signal) => this.#connect(tag, signal), {
        clock: this.#clock,
        ms: this.#options.connectTimeoutMs,
        signal: this.#opening,
        late: {
          // It came after all: closing it is the evidence that its permit waits for.
          resolved: (late) => {
            slot.connection = late
            void this.close(slot)
          },
          // Nothing was opened after all.
          rejected: (error) => {
            if (!this.#driver.reap || !(error instanceof ConnectError && error.doubtful)) this.#closed(slot)
          },
        },
      })
      this.#permits.opened(slot.permit, this.#driver.identity(connection))
    } catch (error) {
      return this.#openFailed(slot, error)
    }
    const now = this.#clock.now()
    this.#watch.tell('millpond:open', () => ({ connection: tag, durationMs: now - startedAt }))
    this.#core.opened(slot, connection, now)
    this.#driver.onClose(connection, (cause) => {
      slot.note ??= cause
      this.#core.lost(slot, this.#clock.now())
      this.#changed()
    })
    this.#refs.letGo(slot)
    this.#changed()
  }

  async #connect(tag: string, signal: AbortSignal): Promise<C> {
    const connection = await this.#driver.open({ signal, tag })
    try {
      // A driver that cannot tell who a connection is could not have it ended, should that be needed.
      this.#driver.identity(connection)
      if (this.#driver.isBroken(connection)) throw new Error('the connection was dead when it was opened')
      await orAborted(Promise.resolve(this.#hooks.onOpen?.(connection)), signal)
      return connection
    } catch (cause) {
      const doubtful = await this.#driver.close(connection, signal).then(
        () => false,
        () => this.#driver.reap !== undefined,
      )
      throw new ConnectError(`A new connection is of no use: ${messageOf(cause)}`, { cause, doubtful })
    }
  }

  #openFailed(slot: Slot<C>, error: unknown): void {
    const late = `No connection within ${this.#options.connectTimeoutMs} ms`
    const cause = error instanceof DeadlineError ? new ConnectError(late, { doubtful: true, cause: error }) : error
    this.#watch.tell('millpond:connect-error', () => ({ cause }))
    if (cause instanceof ConnectError && cause.full) this.#permits.full?.()
    this.#core.openFailed(slot, cause, this.#clock.now())
    if (cause instanceof ConnectError && !cause.retryable) this.#incurable(cause)
    this.#changed()
  }

  // ── On the way out ─────────────────────────────────────────────────────────────────────────────────────────────

  /** A round trip where one is needed, and whoever may refuse the connection. */
  async check(slot: Slot<C>, ping: boolean): Promise<void> {
    const connection = slot.connection as C
    this.#refs.hold(slot)
    let failure: 'ping failed' | 'refused' | undefined
    try {
      if (ping) {
        failure = 'ping failed'
        await withinDeadline((signal) => this.#driver.ping(connection, signal), {
          clock: this.#clock,
          ms: pingTimeoutMs,
        })
      }
      failure = (await this.#isRefused(slot)) ? 'refused' : undefined
    } catch (cause) {
      failure ??= 'refused'
      slot.note ??= cause
    }
    this.#core.checked(slot, failure, this.#clock.now())
    this.#refs.letGo(slot)
    this.#changed()
  }

  /** Asks within the deadline of whoever the connection is for. */
  async #isRefused(slot: Slot<C>): Promise<boolean> {
    const { onAcquire } = this.#hooks
    if (!onAcquire) return false
    const left = (slot.waiter?.deadlineAt ?? Infinity) - this.#clock.now()
    const ms = Math.max(0, Math.min(left, longestAskMs))
    const answer = await withinDeadline(
      (signal) => orAborted(Promise.resolve(onAcquire(slot.connection as C)), signal),
      {
        clock: this.#clock,
        ms,
      },
    )
    return answer === false
  }

  // ── Closing ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Closes, and waits for the other side to let go, or for the doubt whether it has. */
  close(slot: Slot<C>): Promise<void> {
    const closing = this.#close(slot)
    this.#closings.set(slot, closing)
    return closing.finally(() => this.#closings.delete(slot))
  }

  /** Resolves when the close of this connection that is under way has come to an end, or to a doubt. */
  closing(slot: Slot<C>): Promise<void> {
    return this.#closings.get(slot) ?? Promise.resolve()
  }

  /** Resolves when what closes now has come to an end, and what opens now if nobody waits for it, or not in time. */
  async quiet(openingMs: number = this.#options.connectTimeoutMs): Promise<void> {
    if (this.#core.opening > this.#core.waiting) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.setTimer(resolve, openingMs)
        void Promise.all(this.#openings).then(() => {
          timer.cancel()
          resolve()
        })
      })
    }
    await Promise.all(this.#closings.values())
  }

  async #close(slot: Slot<C>): Promise<void> {
    const connection = slot.connection as C
    const { tag } = slot.permit
    const reason = slot.closeReason ?? 'surplus'
    this.#watch.tell('millpond:close', () => ({ connection: tag, reason, cause: slot.note }))
    this.#refs.hold(slot)
    try {
      await withinDeadline((signal) => this.#driver.close(connection, signal), {
        clock: this.#clock,
        ms: closeConnectionTimeoutMs,
        signal: this.#stopping,
        late: {
          resolved: () => this.#closed(slot),
          rejected: () => {
            if (!this.#driver.reap) this.#closed(slot)
          },
        },
      })
    } catch (cause) {
      // A driver that cannot reap is taken at its word: what has settled is closed.
      const settled = !(cause instanceof DeadlineError)
      if (!this.#driver.reap && settled) return this.#closed(slot)
      this.#watch.tell('millpond:doubtful', () => ({ connection: tag, cause }))
      this.#core.inDoubt(slot)
      this.#changed()
      return
    }
    this.#closed(slot)
  }

  #closed(slot: Slot<C>): void {
    if (slot.state !== state.closing) return
    this.#core.closed(slot)
    if (slot.connection !== undefined) this.#tellHook(slot)
    this.#changed()
  }

  #tellHook(slot: Slot<C>): void {
    const { onClose } = this.#hooks
    if (!onClose) return
    const failed = (cause: unknown): void => this.#watch.tell('millpond:hook-error', () => ({ hook: 'onClose', cause }))
    try {
      Promise.resolve(onClose(slot.connection as C, slot.closeReason ?? 'surplus')).catch(failed)
    } catch (cause) {
      failed(cause)
    }
  }

  // ── Reaping ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Until somebody has made sure, or the pool leaves the permit to others. */
  async reapSlot(slot: Slot<C>): Promise<void> {
    const identity =
      slot.connection === undefined
        ? { pid: 0, secret: 0, tag: slot.permit.tag }
        : this.#driver.identity(slot.connection)
    while (slot.state === state.closing && !this.#stopping.aborted && this.#driver.reap) {
      if (await this.reap(identity)) return this.#closed(slot)
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

  /** A reaper with a connection of its own counts beside the one in doubt: one at a time of all who share the limit. */
  #beginBare(): boolean {
    if (this.#reapsBare || this.#permits.beginBareReaping?.(longestReapMs) === false) return false
    this.#reapsBare = true
    return true
  }

  #endBare(): void {
    this.#reapsBare = false
    this.#permits.endBareReaping?.()
  }

  async #reap(identity: Identity): Promise<boolean> {
    const driver = this.#driver
    if (!driver.reap) return false
    const via = this.#clock.now() < this.#bareUntil ? undefined : await this.#leaseFirst()
    if (!via && !this.#beginBare()) return false
    try {
      const reaping = async (signal: AbortSignal): Promise<boolean> =>
        (await driver.reap?.(identity, { via: via?.connection, signal })) ?? false
      return await withinDeadline(reaping, {
        clock: this.#clock,
        ms: reapTimeoutMs,
        signal: this.#stopping,
        keepAlive: false,
      })
    } catch (cause) {
      this.#watch.tell('millpond:doubtful', () => ({ connection: identity.tag, cause }))
      return false
    } finally {
      if (!via) this.#endBare()
      await via?.release()
      // One that was lost by this would have to be reaped in its turn, through the next one, and so on without end.
      if (via && !via.lives) this.#bareUntil = this.#clock.now() + barePauseMs
    }
  }
}
