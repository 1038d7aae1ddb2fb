import { Acquire } from './acquire.ts'
import { limitPermits } from './broker/limit.ts'
import { joinBroker } from './broker/member.ts'
import { tell } from './channels.ts'
import type { Clock, Timer } from './clock.ts'
import { Core } from './core.ts'
import type { Action } from './core.ts'
import { deferred } from './deferred.ts'
import type { Deferred } from './deferred.ts'
import type { Driver } from './driver.ts'
import { DriverCalls, closeConnectionTimeoutMs } from './driver-calls.ts'
import { AcquireTimeoutError, optionTypeError } from './errors.ts'
import { Lease } from './lease.ts'
import type { Lessor } from './lease.ts'
import { duration, resolveOptions } from './options.ts'
import type { GenericPoolOptions, ResolvedOptions } from './options.ts'
import { LocalPermits } from './permits.ts'
import type { Permits, PermitUser } from './permits.ts'
import type { Slot } from './slot.ts'
import type { PoolStats } from './stats.ts'
import type { Waiter } from './waiters.ts'

/** What one acquire may say for itself. */
export interface AcquireOptions {
  /** Gives up waiting; the acquire rejects with `signal.reason`. */
  signal?: AbortSignal
  /** In place of the pool's `acquireTimeoutMs`. 0: only what can be had now. `Infinity`: for ever. */
  timeoutMs?: number
}

const leaseFirstTimeoutMs = 250
const noOptions: AcquireOptions = {}
const done: Promise<void> = Promise.resolve()

/**
 * Lends connections of one kind, never more than `max` at a time, and, with `limit` or `broker`, never more than the
 * limit over all threads. The constructor does no I/O: connections are opened with the first use.
 *
 * @example
 * ```ts
 * import { Pool } from 'millpond'
 * import { FakeDriver } from 'millpond/testing'
 *
 * const pool = new Pool({ driver: new FakeDriver(), max: 5 })
 * await pool.use(async (connection) => connection.id) // acquired, and released when the callback is done
 * await pool.close()
 * ```
 */
export class Pool<C> implements AsyncDisposable {
  readonly #driver: Driver<C>
  readonly #options: ResolvedOptions
  readonly #clock: Clock
  readonly #permits: Permits
  readonly #core: Core<C>
  readonly #calls: DriverCalls<C>
  readonly #lessor: Lessor<C>
  /** Aborted when the pool stops waiting for anything that is under way. */
  readonly #stopping = new AbortController()

  #enrolled = false
  #acting = false
  #sweepTimer: Timer | undefined
  #retryTimer: Timer | undefined
  readonly #openers = new Set<Deferred<void>>()
  #closing: Promise<{ revoked: number }> | undefined
  #empty: Deferred<void> | undefined
  #leavesDoubts = false

  /** Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'` for an option that is not known or not possible. */
  constructor(options: GenericPoolOptions<C>) {
    const { driver, ...rest } = options
    if (typeof driver !== 'object' || driver === null) {
      throw optionTypeError('driver', 'driver must be an object that implements Driver.')
    }
    this.#driver = driver
    this.#options = resolveOptions(rest)
    this.#clock = this.#options.clock
    this.#permits = permitsFor(this.#options)
    this.#core = new Core<C>(this.#options, this.#permits)
    this.#calls = new DriverCalls<C>({
      driver,
      core: this.#core,
      permits: this.#permits,
      options: this.#options,
      stopping: this.#stopping.signal,
      changed: () => this.#act(true),
      incurable: (error) => this.#failOpeners(error),
      leaseFirst: () => this.#leaseFirst(),
    })
    this.#lessor = {
      name: this.#options.name,
      now: () => this.#clock.now(),
      release: (slot, uses) => this.#release(slot, uses),
      destroy: (slot, uses, reason) => this.#destroy(slot, uses, reason),
    }
  }

  get name(): string {
    return this.#options.name
  }

  /**
   * Resolves when `min` connections are open. Rejects with a `ConnectError` that retrying cannot cure, a
   * `BrokerError`, or, when `acquireTimeoutMs` is over, an `AcquireTimeoutError`. Not needed before `acquire`.
   */
  async open(): Promise<void> {
    this.#enrol()
    if (this.#core.refusal) throw this.#core.refusal
    if (this.#core.living >= this.#options.min) return
    const opener = deferred<void>()
    const startedAt = this.#clock.now()
    const { acquireTimeoutMs: timeoutMs } = this.#options
    const timer =
      timeoutMs === Infinity
        ? undefined
        : this.#clock.setTimer(() => opener.reject(this.#timeoutError('connect', startedAt, timeoutMs)), timeoutMs)
    this.#openers.add(opener)
    try {
      this.#act(true)
      await opener.promise
    } finally {
      this.#openers.delete(opener)
      timer?.cancel()
    }
  }

  /**
   * Waits for a connection, first come, first served.
   *
   * Rejects with `AcquireTimeoutError` at the deadline, with `signal.reason` when aborted, and at once with
   * `QueueFullError`, `PoolClosedError`, `BrokerError`, or a `ConnectError` that retrying cannot cure.
   *
   * @example
   * ```ts
   * import { Pool } from 'millpond'
   * import { FakeDriver } from 'millpond/testing'
   *
   * const pool = new Pool({ driver: new FakeDriver() })
   * {
   *   await using lease = await pool.acquire({ timeoutMs: 500 })
   *   lease.connection.id
   * }
   * await pool.close()
   * ```
   */
  acquire(options: AcquireOptions = noOptions): Promise<Lease<C>> {
    try {
      this.#enrol()
      options.signal?.throwIfAborted()
      const now = this.#clock.now()
      const slot = this.#core.take(now)
      if (slot) return Promise.resolve(this.#lend(slot))
      return this.#queue(options, now)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** An idle connection that can be lent as it is, or undefined. Never waits and never overtakes anybody who does. */
  tryAcquire(): Lease<C> | undefined {
    this.#enrol()
    if (this.#core.refusal) throw this.#core.refusal
    const slot = this.#core.take(this.#clock.now())
    if (slot) return this.#lend(slot)
    if (this.#core.actions.length > 0) this.#act(false)
    return undefined
  }

  /** Acquires, calls `fn` with the connection, and releases, also when `fn` throws. */
  async use<R>(fn: (connection: C, lease: Lease<C>) => R | PromiseLike<R>, options?: AcquireOptions): Promise<R> {
    const lease = await this.acquire(options)
    try {
      return await fn(lease.connection, lease)
    } finally {
      await lease.release()
    }
  }

  /** A snapshot; cheap enough for every request. */
  stats(): PoolStats {
    return { ...this.#core.stats(), broker: this.#permits.stats?.() }
  }

  /**
   * Refuses who waits, lets leases finish until the deadline, then revokes them. Resolves, never rejects, when every
   * connection is closed and no timer is left. A second call returns the first one's promise.
   *
   * @param options.timeoutMs in place of the pool's `closeTimeoutMs`
   */
  close(options: { timeoutMs?: number } = {}): Promise<{ revoked: number }> {
    const timeoutMs = duration('timeoutMs', options.timeoutMs, this.#options.closeTimeoutMs, { endless: true })
    this.#closing ??= this.#close(timeoutMs, new Error(`"${this.name}" was closed here`))
    return this.#closing
  }

  /** Same as `close()`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  // ── Acquiring ──────────────────────────────────────────────────────────────────────────────────────────────────

  #enrol(): void {
    if (this.#enrolled || this.#core.refusal) return
    this.#permits.enrol(this.#user)
    this.#enrolled = true
    if (this.#options.min > 0) this.#act(true)
  }

  #lend(slot: Slot<C>): Lease<C> {
    this.#driver.ref?.(slot.connection as C)
    if (this.#core.actions.length > 0) this.#act(false)
    return new Lease(this.#lessor, slot)
  }

  #queue(options: AcquireOptions, now: number, first = false): Promise<Lease<C>> {
    const timeoutMs = duration('timeoutMs', options.timeoutMs, this.#options.acquireTimeoutMs, { endless: true })
    const acquire = new Acquire<C>({
      clock: this.#clock,
      now,
      timeoutMs,
      signal: options.signal,
      lend: (slot) => this.#lend(slot),
      timeOut: (waiter) => this.#timeOut(waiter, timeoutMs),
      abort: (waiter) => {
        if (this.#core.abort(waiter)) this.#act(true)
      },
    })
    this.#core.wait(acquire.waiter, now, first)
    this.#act(true)
    // A ping, too, is something that can be had now; only its own deadline bounds it.
    if (timeoutMs === 0 && acquire.waiter.deque !== undefined) this.#timeOut(acquire.waiter, 0)
    else acquire.arm()
    return acquire.promise
  }

  #timeOut(waiter: Waiter<Slot<C>>, timeoutMs: number): void {
    const phase = this.#core.phaseOf(waiter)
    const error = this.#timeoutError(phase, waiter.queuedAt, timeoutMs)
    if (!this.#core.timeOut(waiter)) return
    waiter.answer.fail(error)
    this.#act(true)
  }

  #timeoutError(phase: AcquireTimeoutError['phase'], since: number, timeoutMs: number): AcquireTimeoutError {
    const waitedMs = this.#clock.now() - since
    tell('millpond:timeout', () => ({ pool: this.name, phase, waitedMs }))
    return new AcquireTimeoutError({
      phase,
      waitedMs,
      timeoutMs,
      stats: this.stats(),
      cause: this.#core.connectFailure,
    })
  }

  // ── Releasing ──────────────────────────────────────────────────────────────────────────────────────────────────

  #release(slot: Slot<C>, uses: number): Promise<void> {
    if (!this.#core.isLeased(slot, uses)) return done
    const connection = slot.connection as C
    const { reset: mode } = this.#options
    if (this.#driver.isBroken(connection)) {
      this.#core.destroy(slot, 'broken')
      this.#act(true)
      return done
    }
    if (mode !== 'none' && (this.#driver.needsReset?.(connection, mode) ?? true)) return this.#reset(slot, mode)
    this.#released(slot)
    return done
  }

  #released(slot: Slot<C>): void {
    this.#core.released(slot, this.#clock.now())
    this.#calls.rest(slot)
    if (this.#core.actions.length > 0 || this.#permits.unsettled) this.#act(true)
  }

  async #reset(slot: Slot<C>, mode: 'auto' | 'full'): Promise<void> {
    this.#core.resetting(slot)
    if (await this.#calls.reset(slot, mode)) return this.#released(slot)
    this.#core.destroy(slot, 'reset failed')
    this.#act(true)
  }

  #destroy(slot: Slot<C>, uses: number, reason: string | undefined): Promise<void> {
    if (!this.#core.isLeased(slot, uses)) return done
    slot.note = reason
    this.#core.destroy(slot, 'destroyed')
    this.#act(true)
    return done
  }

  // ── Doing what the core and the permits have decided ───────────────────────────────────────────────────────────

  /** What the permits may ask of this pool. */
  readonly #user: PermitUser = this.#permitUser()

  #permitUser(): PermitUser {
    // oxlint-disable-next-line no-this-alias -- getters have a `this` of their own
    const pool = this
    return {
      get min() {
        return pool.#core.min
      },
      get waiting() {
        return pool.#core.waiting
      },
      get oldestWaiterAt() {
        return pool.#core.oldestWaiterAt
      },
      get opening() {
        return pool.#core.opening
      },
      get living() {
        return pool.#core.living
      },
      get idle() {
        return pool.#core.idle
      },
      get oldestIdleAt() {
        return pool.#core.oldestIdleAt
      },
      get lacking() {
        return pool.#core.lacking(pool.#clock.now())
      },
      open: (permit) => pool.#core.open(permit),
      retireIdle: () => pool.#core.retireIdle(),
      settled: () => pool.#act(false),
      refuse: (error) => pool.#refuse(error),
      reap: (identity) => pool.#calls.reap(identity),
    }
  }

  /**
   * Carries out every decision, and those that come of it. Driver calls may call back at once; the outermost round
   * takes what they leave behind.
   */
  #act(settle: boolean): void {
    if (this.#acting) return
    this.#acting = true
    const { actions } = this.#core
    let performed = 0
    try {
      if (settle && this.#enrolled) this.#permits.settle()
      for (let action = actions[performed]; action; action = actions[performed]) {
        performed++
        this.#perform(action)
        if (performed === actions.length && this.#enrolled) this.#permits.settle()
      }
    } finally {
      actions.splice(0, performed)
      this.#acting = false
    }
    this.#retryLater()
    this.#sweepLater()
    if (this.#openers.size > 0 && this.#core.living >= this.#options.min) {
      for (const opener of this.#openers) opener.resolve()
    }
    const left = this.#core.size - (this.#leavesDoubts ? this.#core.doubtful : 0)
    if (this.#core.phase !== 'open' && left === 0) this.#empty?.resolve()
  }

  #perform(action: Action<C>): void {
    switch (action.do) {
      case 'serve':
        return action.waiter.answer.serve(action.slot)
      case 'fail':
        return action.waiter.answer.fail(action.error)
      case 'open':
        return void this.#calls.open(action.slot)
      case 'ping':
        return void this.#calls.ping(action.slot)
      case 'close':
        return void this.#calls.close(action.slot)
      case 'reap':
        return void this.#calls.reapSlot(action.slot)
    }
  }

  /** A living connection for the pool's own use, before everybody else; undefined if there is none, or none in time. */
  async #leaseFirst(): Promise<Lease<C> | undefined> {
    if (this.#core.living === 0 || this.#core.refusal) return undefined
    try {
      return await this.#queue({ timeoutMs: leaseFirstTimeoutMs }, this.#clock.now(), true)
    } catch {
      // Closed or too busy: reaping goes on without one.
      return undefined
    }
  }

  #failOpeners(error: unknown): void {
    for (const opener of this.#openers) opener.reject(error)
  }

  #refuse(error: Error): void {
    this.#core.refuse(error)
    this.#failOpeners(error)
    this.#act(false)
  }

  // ── Time ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Tries to connect again when the backoff is over. Keeps the process alive only while somebody waits. */
  #retryLater(): void {
    this.#retryTimer?.cancel()
    const at = this.#core.retryAt
    if (at === undefined) return
    const ms = Math.max(0, at - this.#clock.now())
    this.#retryTimer = this.#clock.setTimer(() => this.#act(true), ms, this.#core.waiting > 0)
  }

  /** Looks after idle connections while there are any. */
  #sweepLater(): void {
    if (this.#core.size === 0) {
      this.#sweepTimer?.cancel()
      this.#sweepTimer = undefined
      return
    }
    if (this.#sweepTimer) return
    const { idleTimeoutMs, maxLifetimeMs } = this.#options
    const every = Math.max(10, Math.min(idleTimeoutMs, maxLifetimeMs) / 4)
    if (every === Infinity) return
    const dueAt = this.#clock.now() + every
    this.#sweepTimer = this.#clock.setTimer(
      () => {
        this.#sweepTimer = undefined
        const now = this.#clock.now()
        this.#core.sweep(now, now - dueAt > every / 2)
        this.#act(true)
      },
      every,
      false,
    )
  }

  // ── Closing ────────────────────────────────────────────────────────────────────────────────────────────────────

  async #close(timeoutMs: number, closedBy: Error): Promise<{ revoked: number }> {
    this.#core.close(closedBy)
    this.#empty = deferred<void>()
    this.#failOpeners(this.#core.refusal)
    this.#act(true)
    let revoked = 0
    const timers: Timer[] = []
    if (timeoutMs !== Infinity) {
      const revoke = (): void => {
        revoked = this.#core.revoke()
        // Others reap what this pool leaves in doubt; what closes is waited for as long as any close.
        this.#leavesDoubts = true
        this.#act(true)
        timers.push(this.#clock.setTimer(() => this.#empty?.resolve(), closeConnectionTimeoutMs))
      }
      timers.push(this.#clock.setTimer(revoke, timeoutMs))
    }
    await this.#empty.promise
    for (const timer of timers) timer.cancel()
    this.#stopping.abort()
    await this.#calls.reaped()
    this.#sweepTimer?.cancel()
    this.#retryTimer?.cancel()
    if (this.#enrolled) this.#permits.leave()
    return { revoked }
  }
}

/** The limit over all threads where one is asked for, else none but `max`. */
function permitsFor({ limit, broker, clock }: ResolvedOptions): Permits {
  if (limit) return limitPermits({ limit, clock })
  return broker === undefined ? new LocalPermits() : joinBroker({ name: broker, clock })
}
