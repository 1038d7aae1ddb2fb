import { setMaxListeners } from 'node:events'
import { Acquire } from './acquire.ts'
import type { Acquirer } from './acquire.ts'
import type { Action } from './action.ts'
import { permitsFor } from './broker/limit.ts'
import type { Clock, Timer } from './clock.ts'
import { Core } from './core.ts'
import { deferred } from './deferred.ts'
import type { Deferred } from './deferred.ts'
import { DriverCalls, closeConnectionTimeoutMs } from './driver-calls.ts'
import { AcquireTimeoutError, optionTypeError } from './errors.ts'
import type { AcquirePhase } from './errors.ts'
import { Expiry } from './expiry.ts'
import { loopStops, warnOfStops } from './frozen-loop.ts'
import { whileHolding } from './holding.ts'
import type { Holding } from './holding.ts'
import { Lease, whenQuiet } from './lease.ts'
import type { Lessor } from './lease.ts'
import { duration, resolveOptions, splitHooks } from './options.ts'
import type { GenericPoolOptions, Hooks, ResolvedOptions } from './options.ts'
import type { Lull } from './lull.ts'
import { CoreUser } from './permit-user.ts'
import type { Permits } from './permits.ts'
import { Refs } from './refs.ts'
import type { Slot } from './slot.ts'
import type { PoolStats } from './stats.ts'
import { Upkeep } from './upkeep.ts'
import { Watch } from './watch.ts'

/** What one acquire may say for itself. */
export interface AcquireOptions {
  /** Gives up waiting; the acquire rejects with `signal.reason`. */
  signal?: AbortSignal
  /** In place of the pool's `acquireTimeoutMs`. 0: only what can be had now. `Infinity`: for ever. */
  timeoutMs?: number
}

const leaseFirstTimeoutMs = 250
/** One that is about to be there is closed more surely than one that is given up half-way. */
const openingGraceMs = 500
const givenUpOpeningMs = 1_000
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
  readonly #hooks: Hooks<C>
  readonly #options: ResolvedOptions
  readonly #clock: Clock
  readonly #permits: Permits
  readonly #lull: Lull
  readonly #core: Core<C>
  readonly #user: CoreUser<C>
  readonly #watch: Watch
  readonly #refs: Refs<C>
  readonly #calls: DriverCalls<C>
  readonly #upkeep: Upkeep<C>
  readonly #acquirer: Acquirer<C>
  readonly #lessor: Lessor<C>
  /** Aborted when the pool stops waiting for connections that open … */
  readonly #opening = new AbortController()
  /** … and for anything that is under way. */
  readonly #stopping = new AbortController()

  #enrolled = false
  #acting = false
  /** While acting: the permits have to look again. */
  #changed = false
  readonly #openers = new Set<Deferred<void>>()
  #closing: Promise<{ revoked: number }> | undefined
  #empty: Deferred<void> | undefined
  #leavesDoubts = false

  /** Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'` for an option that is not known or not possible. */
  constructor(options: GenericPoolOptions<C>) {
    const { driver, ...others } = options
    if (typeof driver !== 'object' || driver === null) {
      throw optionTypeError('driver', 'driver must be an object that implements Driver.')
    }
    // Every call that is under way listens, and there may be many.
    setMaxListeners(0, this.#opening.signal, this.#stopping.signal)
    const { hooks, rest } = splitHooks<C>(others)
    this.#hooks = hooks
    this.#options = resolveOptions(rest)
    this.#watch = new Watch(this.#options.name, this.#options.log)
    this.#refs = new Refs<C>(driver)
    this.#clock = this.#options.clock
    this.#permits = permitsFor(this.#options)
    this.#lull = this.#permits.lull
    this.#core = new Core<C>({ ...this.#options, checkAlways: hooks.onAcquire !== undefined }, this.#permits)
    this.#calls = new DriverCalls<C>({
      driver,
      hooks,
      refs: this.#refs,
      watch: this.#watch,
      core: this.#core,
      permits: this.#permits,
      options: this.#options,
      opening: this.#opening.signal,
      stopping: this.#stopping.signal,
      changed: () => this.#act(true),
      incurable: (error) => this.#failOpeners(error),
      leaseFirst: () => this.#leaseFirst(),
    })
    this.#upkeep = new Upkeep<C>({
      core: this.#core,
      watch: this.#watch,
      options: this.#options,
      act: () => this.#act(true),
    })
    this.#user = new CoreUser<C>(this.#core, this.#clock, {
      settled: () => this.#act(false),
      refuse: (error) => this.#refuse(error),
      reap: (identity) => this.#calls.reap(identity),
    })
    this.#acquirer = {
      expiry: new Expiry(this.#clock),
      lend: (slot, queuedAt, trace) => this.#lend(slot, trace, queuedAt),
      timeOut: (acquire) => this.#timeOut(acquire),
      abort: (waiter) => {
        const unanswered = this.#core.abort(waiter)
        if (unanswered) this.#act(true)
        return unanswered
      },
      givenUp: loopStops() ? (fn) => void this.#calls.quiet(givenUpOpeningMs).then(fn) : undefined,
    }
    const lessor: Lessor<C> = {
      name: this.#options.name,
      now: () => this.#clock.now(),
      release: (slot, uses) => this.#release(slot, uses),
      destroy: (slot, uses, reason) => this.#destroy(slot, uses, reason),
      isSpent: (slot) => this.#core.isSpent(slot, this.#coarseNow()),
      isOwed: ({ permit, openedAt }) => !this.#lull.lasts && this.#permits.owes?.(permit, openedAt) === true,
    }
    this.#lessor = loopStops() ? whenQuiet(lessor, () => this.#calls.quiet()) : lessor
    if (loopStops()) warnOfStops()
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
    if (this.#core.living >= this.#core.min) return
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
      const slot = this.#hooks.onAcquire ? undefined : this.#core.take(this.#coarseNow())
      if (slot) return Promise.resolve(this.#lend(slot, this.#trace()))
      return this.#queue(options, this.#clock.now()).promise
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * An idle connection that can be lent as it is, or undefined. Never waits and never overtakes anybody who does; lends
   * nothing that needs a ping, or that an `onAcquire` takes its time to look at.
   */
  tryAcquire(): Lease<C> | undefined {
    this.#enrol()
    if (this.#core.refusal) throw this.#core.refusal
    let slot = this.#core.take(this.#coarseNow())
    while (slot) {
      const welcome = this.#welcomes(slot)
      if (welcome === true) return this.#lend(slot, this.#trace())
      // It would take its time over the next one, too.
      slot = welcome === 'later' ? undefined : this.#core.take(this.#coarseNow())
    }
    if (this.#core.actions.length > 0) this.#act(true)
    return undefined
  }

  /** @internal As `acquire()` when `tryAcquire()` had nothing, for a caller who may leave without a signal. */
  wait(): Acquire<C> {
    this.#enrol()
    return this.#queue(noOptions, this.#clock.now())
  }

  /** @internal How many wait. */
  get waiting(): number {
    return this.#core.waiting
  }

  /** @internal How many connections are on their way. */
  get opening(): number {
    return this.#core.opening
  }

  /** @internal Whoever waits longest, if he would take something else than a connection (`Acquire.wanted`). */
  get firstWaiting(): Acquire<C> | undefined {
    const { first } = this.#core
    return first instanceof Acquire && first.wanted !== undefined ? first : undefined
  }

  /** @internal He has something else. */
  spare(acquire: Acquire<C>): void {
    this.#core.spare(acquire, this.#clock.now())
    acquire.spare()
  }

  /** @internal Why one who has something else has had nothing of it until his deadline. */
  sparedTimedOut(since: number, timeoutMs: number): AcquireTimeoutError {
    this.#core.sparedTimedOut()
    return this.#timeoutError('queue', since, timeoutMs)
  }

  /** @internal Since when one more connection would be of use, though nobody waits for it; undefined: it would not. */
  press(since: number | undefined): void {
    this.#core.pressedAt = since
    this.#act(true)
  }

  /** @internal What an acquire was short of that its caller gives up after `timeoutMs`. */
  shortOf(acquire: Acquire<C>, timeoutMs: number): AcquireTimeoutError {
    return this.#shortage(this.#core.phaseOf(acquire), acquire.queuedAt, timeoutMs, acquire.held)
  }

  /** Acquires, calls `fn` with the connection, and releases, also when `fn` throws. */
  async use<R>(fn: (connection: C, lease: Lease<C>) => R | PromiseLike<R>, options?: AcquireOptions): Promise<R> {
    const lease = await this.acquire(options)
    try {
      return await whileHolding(this.#holdingOf(lease), () => fn(lease.connection, lease))
    } finally {
      await lease.release()
    }
  }

  /** Gives idle connections above `min` back now, and waits until they are closed: before a long synchronous stretch. */
  async releaseIdle(): Promise<void> {
    const slots = this.#core.releaseIdle()
    this.#act(true)
    await Promise.all(slots.map((slot) => this.#calls.closing(slot)))
  }

  /** Retires every connection of today, for new credentials or after a failover: idle ones now, leased ones on release. */
  evict(): void {
    this.#watch.tell('millpond:evict', () => ({ connections: this.#core.living }))
    this.#core.evict()
    this.#act(true)
  }

  /**
   * New bounds. Takes no lease away: what is too much by now closes as it comes back. Throws `ERR_OPTION` for bounds
   * that cannot be, `ERR_BROKER_MISMATCH` for a `min` that the shared limit has no room for.
   */
  resize({ min = this.#core.min, max = this.#core.max }: { min?: number; max?: number }): void {
    const { maxIdle } = this.#options
    // A `maxIdle` below the old `max` was meant; one that is equal to it just followed.
    const bounds = resolveOptions({
      name: this.name,
      min,
      max,
      maxIdle: maxIdle < this.#options.max ? Math.max(min, Math.min(maxIdle, max)) : max,
    })
    if (this.#enrolled) this.#permits.resized?.(bounds.min)
    this.#core.resize(bounds)
    this.#act(true)
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

  #lend(slot: Slot<C>, trace: Error | undefined, queuedAt?: number): Lease<C> {
    slot.trace = trace
    this.#refs.hold(slot)
    if (this.#watch.hearsLeases) {
      const now = this.#clock.now()
      slot.leasedAt = now
      this.#watch.tell('millpond:acquire', () => ({ connection: slot.permit.tag, waitedMs: now - (queuedAt ?? now) }))
    }
    if (this.#core.actions.length > 0) this.#act(false)
    return new Lease(this.#lessor, slot)
  }

  /** Where an acquire comes from, while leaks are looked for. */
  #trace(): Error | undefined {
    return this.#options.leakAfterMs === Infinity ? undefined : new Error('acquired here')
  }

  /** The idle path reads no clock of its own, unless somebody wants to know how long leases are held. */
  #coarseNow(): number {
    return this.#options.timings ? this.#clock.now() : (this.#clock.coarse?.() ?? this.#clock.now())
  }

  /** Whether `onAcquire` lets it pass at once. One that it takes its time over is somebody else's, or idle, afterwards. */
  #welcomes(slot: Slot<C>): boolean | 'later' {
    const { onAcquire } = this.#hooks
    if (!onAcquire) return true
    let answer: unknown
    try {
      answer = onAcquire(slot.connection as C)
    } catch (cause) {
      slot.note = cause
      answer = false
    }
    if (answer === false) this.#core.destroy(slot, 'refused')
    if (!isPromise(answer)) return answer !== false
    this.#core.resetting(slot)
    const settle = (refused: boolean): void => {
      if (refused) this.#core.destroy(slot, 'refused')
      this.#released(slot)
      this.#act(true)
    }
    answer.then(
      (value) => settle(value === false),
      () => settle(true),
    )
    return 'later'
  }

  #holdingOf(lease: Lease<C>): Omit<Holding, 'outer'> {
    const { tag, since, acquiredAt } = lease.origin
    return { pool: this.#acquirer, connection: tag, since, acquiredAt, holds: () => !lease.released }
  }

  #queue(options: AcquireOptions, now: number, first = false): Acquire<C> {
    const timeoutMs = duration('timeoutMs', options.timeoutMs, this.#options.acquireTimeoutMs, { endless: true })
    const acquire = new Acquire<C>(this.#acquirer, { now, timeoutMs, signal: options.signal, trace: this.#trace() })
    this.#core.wait(acquire, now, first)
    this.#act(true)
    // A connection that only needs a ping can be had now.
    if (timeoutMs === 0 && acquire.deque !== undefined) acquire.expire()
    else acquire.arm()
    return acquire
  }

  #timeOut(acquire: Acquire<C>): void {
    if (acquire.state !== 'waiting') return
    const { queuedAt, timeoutMs, held } = acquire
    const error = this.#timeoutError(this.#core.phaseOf(acquire), queuedAt, timeoutMs, held)
    this.#core.timeOut(acquire)
    acquire.fail(error)
    this.#act(true)
  }

  #timeoutError(phase: AcquirePhase, since: number, timeoutMs: number, held?: Holding): AcquireTimeoutError {
    const error = this.#shortage(phase, since, timeoutMs, held)
    this.#watch.tell('millpond:timeout', () => ({ phase, waitedMs: error.waitedMs }))
    return error
  }

  #shortage(phase: AcquirePhase, since: number, timeoutMs: number, held?: Holding): AcquireTimeoutError {
    return new AcquireTimeoutError({
      phase,
      waitedMs: this.#clock.now() - since,
      timeoutMs,
      stats: this.stats(),
      cause: this.#core.connectFailure,
      holds: held?.holds()
        ? { connection: held.connection, heldMs: this.#clock.now() - held.since, acquiredAt: held.acquiredAt }
        : undefined,
    })
  }

  // ── Releasing ──────────────────────────────────────────────────────────────────────────────────────────────────

  #release(slot: Slot<C>, uses: number): Promise<void> {
    if (!this.#core.isLeased(slot, uses)) return done
    const connection = slot.connection as C
    if (this.#watch.hearsLeases) {
      const heldMs = this.#clock.now() - slot.leasedAt
      this.#watch.tell('millpond:release', () => ({ connection: slot.permit.tag, heldMs }))
    }
    if (this.#calls.isBroken(connection)) {
      this.#core.destroy(slot, 'broken')
      this.#act(true)
      return done
    }
    if (this.#calls.needsReset(connection)) return this.#reset(slot)
    this.#released(slot)
    return done
  }

  #released(slot: Slot<C>): void {
    this.#core.released(slot, this.#coarseNow())
    this.#refs.letGo(slot)
    if (this.#core.actions.length > 0 || (!this.#lull.known && this.#permits.unsettled)) this.#act(true)
  }

  async #reset(slot: Slot<C>): Promise<void> {
    this.#core.resetting(slot)
    if (await this.#calls.reset(slot)) return this.#released(slot)
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

  /**
   * Carries out every decision, and those that come of it. Driver calls may call back at once; the outermost round
   * takes what they leave behind.
   */
  #act(settle: boolean): void {
    if (this.#acting) {
      this.#changed = true
      return
    }
    this.#acting = true
    const { actions } = this.#core
    let performed = 0
    try {
      if (settle && this.#enrolled) this.#permits.settle()
      for (let action = actions[performed]; action; action = actions[performed]) {
        performed++
        this.#perform(action)
        // Telling a caller that it is served is nothing to the permits, and the most frequent of all.
        if (action.do !== 'serve') this.#changed = true
        if (performed < actions.length || !this.#changed || !this.#enrolled) continue
        this.#changed = false
        this.#permits.settle()
      }
    } finally {
      if (performed < actions.length) actions.splice(0, performed)
      else while (actions.length > 0) actions.pop()
      this.#acting = false
      this.#changed = false
    }
    this.#upkeep.schedule()
    if (this.#openers.size > 0 && this.#core.living >= this.#core.min) {
      for (const opener of this.#openers) opener.resolve()
    }
    const left = this.#core.size - (this.#leavesDoubts ? this.#core.doubtful : 0)
    if (this.#core.phase !== 'open' && left === 0) this.#empty?.resolve()
  }

  #perform(action: Action<C>): void {
    switch (action.do) {
      case 'serve':
        return action.waiter.serve(action.slot)
      case 'expire':
        return action.waiter.expire()
      case 'fail':
        return action.waiter.fail(action.error)
      case 'open':
        return void this.#calls.open(action.slot)
      case 'check':
        return void this.#calls.check(action.slot, action.ping)
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
      return await this.#queue({ timeoutMs: leaseFirstTimeoutMs }, this.#clock.now(), true).promise
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

  // ── Closing ────────────────────────────────────────────────────────────────────────────────────────────────────

  async #close(timeoutMs: number, closedBy: Error): Promise<{ revoked: number }> {
    this.#core.close(closedBy)
    this.#empty = deferred<void>()
    this.#failOpeners(this.#core.refusal)
    this.#act(true)
    let revoked = 0
    const timers: Timer[] = [this.#clock.setTimer(() => this.#opening.abort(), openingGraceMs)]
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
    this.#upkeep.stop()
    this.#permits.leave()
    return { revoked }
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value
}
