import { ConnectError, PoolClosedError, QueueFullError } from './errors.ts'
import type { Action } from './action.ts'
import { assertInvariants } from './core-invariants.ts'
import type { AcquirePhase } from './errors.ts'
import { Backoff } from './backoff.ts'
import { Counters } from './counters.ts'
import { Idle } from './idle.ts'
import type { CoreOptions } from './options.ts'
import type { Lull } from './lull.ts'
import type { Permit, Permits } from './permits.ts'
import { Slot, state } from './slot.ts'
import { Slots } from './slots.ts'
import type { CloseReason, PoolStats } from './stats.ts'
import { Waiters } from './waiters.ts'
import type { Waiter } from './waiters.ts'

/**
 * The pool's decisions. Every method is an event; it decides at once, without waiting, and leaves what is to be done
 * in `actions`.
 *
 * State
 *   slots    every permit this pool holds, one slot each
 *   idle     the slots in state idle, the one idle longest first
 *   waiters  acquires that are neither answered nor bound to a slot that is being pinged for them
 *   phase    open → draining (waiters refused, leases may finish) → closed (no slot left)
 *   min, max, maxIdle   as the options say, or as they were resized
 *   generation          connections of an older one are not lent again
 *   suspectBefore       idle connections that have proved nothing since are pinged before they are lent
 *   pressedAt           since when one more connection would be of use, though nobody waits for it
 *
 * Always, at the end of every method
 *   1. slots.size === permits held <= max (after max was lowered: no slot is added before that holds again)
 *   2. idle.size === 0 || waiters.size === 0
 *   3. every slot in `slots` is in the state that the counts say, and `idle` is exactly those in state idle
 *   4. phase open, or nobody waits and nothing is idle
 */
export class Core<C> {
  readonly actions: Action<C>[] = []
  readonly #options: CoreOptions
  readonly #permits: Permits
  readonly #lull: Lull
  readonly #random: () => number

  readonly #slots = new Slots<C>()
  readonly #idle: Idle<C>
  readonly #waiters = new Waiters<Slot<C>>()
  #phase: PoolStats['phase'] = 'open'
  #closedBy: unknown
  /** What every acquire is refused with, once the permits can never be had. */
  #refusal: Error | undefined
  #min: number
  #max: number
  #maxIdle: number
  #generation = 0
  #suspectBefore = -Infinity
  pressedAt: number | undefined
  /** Of the idle timeout. */
  #quarterEndsAt = -Infinity

  readonly #backoff: Backoff
  readonly #counters: Counters

  constructor(options: CoreOptions, permits: Permits, random: () => number = Math.random) {
    this.#options = options
    this.#min = options.min
    this.#max = options.max
    this.#maxIdle = options.maxIdle
    this.#idle = new Idle(options.order)
    this.#permits = permits
    this.#lull = permits.lull
    this.#random = random
    this.#backoff = new Backoff(random)
    this.#counters = new Counters(options.timings)
  }

  // ── Acquiring ──────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Leases an idle connection that needs no ping; undefined if there is none, or if somebody waits. It is the caller's
   * to look at it first, if that has to be.
   */
  take(now: number): Slot<C> | undefined {
    const slot = this.#nextIdle(now)
    if (!slot || this.#needsPing(slot, now)) return undefined
    this.#idle.remove(slot)
    this.#lease(slot, now)
    return slot
  }

  /**
   * Queues an acquire, unless an idle connection only needs a ping first: then it waits for that one. The pool's own
   * needs go `first`.
   */
  wait(waiter: Waiter<Slot<C>>, now: number, first = false): void {
    waiter.own = first
    const { refusal } = this
    if (refusal) return this.#fail(waiter, refusal)
    const slot = this.#nextIdle(now)
    if (slot) return this.#check(slot, waiter, now)
    if (first) return this.#waiters.place(waiter)
    const { name, maxWaiting } = this.#options
    if (this.#waiters.size >= maxWaiting) {
      return this.#fail(waiter, new QueueFullError(name, this.#waiters.size, maxWaiting))
    }
    this.#waiters.join(waiter)
  }

  /** The caller does not want it any more. What was under way for it goes on, for others. */
  abort(waiter: Waiter<Slot<C>>): boolean {
    if (!waiter.settle('aborted')) return false
    this.#counters.aborted++
    this.#waiters.leave(waiter)
    return true
  }

  /** The deadline has come. True if the waiter had not been answered: the caller owes it the error. */
  timeOut(waiter: Waiter<Slot<C>>): boolean {
    if (!waiter.settle('timed out')) return false
    this.#counters.timeouts++
    this.#waiters.leave(waiter)
    return true
  }

  /** Who waits longest, unless the pool itself waits: that comes before everybody. */
  get first(): Waiter<Slot<C>> | undefined {
    return this.#waiters.firstUser
  }

  /** The one that waits longest has found something else. */
  spare(waiter: Waiter<Slot<C>>, now: number): void {
    waiter.settle('spared')
    this.#waiters.leave(waiter)
    this.#counters.waits.record(now - waiter.queuedAt)
  }

  /** One that was spared has waited in vain for what it has found. */
  sparedTimedOut(): void {
    this.#counters.timeouts++
  }

  /** What the waiter is waiting for. Asked before it times out. */
  phaseOf(waiter: Waiter<Slot<C>>): AcquirePhase {
    if (waiter.deque === undefined) return 'ping'
    if (this.#waiters.isAmongFirst(waiter, this.#slots.count(state.opening)) || this.#backoff.failures > 0)
      return 'connect'
    return this.#slots.size >= this.#max ? 'queue' : 'permit'
  }

  /** Why no acquire can be served any more; undefined while the pool is open. */
  get refusal(): Error | undefined {
    if (this.#phase !== 'open') return new PoolClosedError(this.#options.name, this.#closedBy)
    return this.#refusal
  }

  /** The permits can never be had (any more). */
  refuse(error: Error): void {
    this.#refusal = error
    this.#failAll(error)
    this.#retireIdle('closed')
  }

  // ── Opening ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** How many more connections to open now: when waiters outnumber openings, or `min` is unmet. */
  lacking(now: number): number {
    return now < this.#backoff.until ? 0 : this.lackingSoon
  }

  /** As `lacking`, whether or not connecting is worth a try now. */
  get lackingSoon(): number {
    // Asked with each release.
    if (this.#waiters.size === 0 && this.#min === 0 && this.pressedAt === undefined) return 0
    if (this.#phase !== 'open' || this.#refusal) return 0
    const users = Math.max(this.#waiters.users, this.pressedAt !== undefined && this.#idle.size === 0 ? 1 : 0)
    const forWaiters = users - this.#slots.count(state.opening)
    const forMin = this.#min - this.living - this.#slots.count(state.opening)
    const wanted = Math.max(0, Math.min(Math.max(forWaiters, forMin), this.#max - this.#slots.size))
    // While connecting fails, one attempt at a time finds out whether it still does.
    return this.#backoff.failures > 0 ? Math.min(wanted, this.#slots.count(state.opening) > 0 ? 0 : 1) : wanted
  }

  /**
   * When to look again whether connections are lacking: the end of the backoff, which may have passed already. Undefined
   * if nothing is lacking, or connecting has not failed.
   */
  get retryAt(): number | undefined {
    return this.#backoff.failures > 0 && this.lackingSoon > 0 ? this.#backoff.until : undefined
  }

  open(permit: Permit, now: number): void {
    if (this.#slots.size >= this.#max) throw new Error('bug: a slot beyond max')
    const slot = new Slot<C>(permit, { round: this.#backoff.round, generation: this.#generation })
    slot.openedAt = now
    this.#slots.add(slot)
    this.actions.push({ do: 'open', slot })
  }

  /** A connection is there; whoever waits longest gets it. */
  opened(slot: Slot<C>, connection: C, now: number): void {
    this.#counters.opens++
    this.#counters.openings.record(now - slot.openedAt)
    // One that is looked at first has not proved anything yet.
    if (!this.#options.checkAlways) this.#backoff.reset()
    slot.connection = connection
    slot.openedAt = now
    slot.idleAt = now
    slot.provenAt = now
    slot.expiresAt = now + this.#options.maxLifetimeMs * (1 - 0.1 * this.#random())
    this.#place(slot, now)
  }

  /** An attempt failed. All who wait hear of it at once if trying again cannot help; else with their own deadline. */
  openFailed(slot: Slot<C>, cause: unknown, now: number): void {
    this.#counters.openFailures++
    this.#backoff.failed(cause, slot.round, now)
    if (cause instanceof ConnectError && cause.doubtful) {
      this.#slots.move(slot, state.closing)
      this.#permits.closing(slot.permit)
      this.inDoubt(slot)
    } else {
      this.#leave(slot)
    }
    if (cause instanceof ConnectError && !cause.retryable) {
      const attempts = this.#backoff.failures
      this.#failAll(new ConnectError(cause.message, { attempts, retryable: false, cause: cause.cause ?? cause }))
    }
  }

  /** The last failure to connect, while none has succeeded since. */
  get connectFailure(): unknown {
    return this.#backoff.lastFailure
  }

  // ── Checking ───────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * The check of a connection has ended: its ping, or whoever may refuse it. The waiter it was for is served, or goes on
   * with the next connection, within its deadline.
   */
  checked(slot: Slot<C>, failure: 'ping failed' | 'refused' | undefined, now: number): void {
    if (slot.state !== state.checking) return
    const waiter = slot.waiter
    slot.waiter = undefined
    const waits = waiter?.state === 'waiting'
    slot.provenAt = now
    if (failure) {
      // A new one that is of no use is as good as none: the next one is not opened at once for ever.
      if (slot.uses === 0)
        this.#backoff.failed(slot.note ?? new Error(`a new connection was of no use: ${failure}`), slot.round, now)
      this.#retire(slot, failure)
      if (waits) this.#again(waiter, now)
      return
    }
    if (slot.uses === 0) this.#backoff.reset()
    const reason = this.#spent(slot, now)
    if (!waits) this.#place(slot, now)
    else if (!reason) this.#serve(waiter, slot, now)
    else {
      this.#retire(slot, reason)
      this.#again(waiter, now)
    }
  }

  // ── Releasing ──────────────────────────────────────────────────────────────────────────────────────────────────

  /** Still somebody's lease? */
  isLeased(slot: Slot<C>, uses: number): boolean {
    return slot.state === state.leased && slot.uses === uses
  }

  /** Whether it would be closed instead of lent again, if it came back now, for what it is. */
  isSpent(slot: Slot<C>, now: number): boolean {
    return this.#spent(slot, now) !== undefined
  }

  /** The session is being cleaned; `released` or `destroy` follows. */
  resetting(slot: Slot<C>): void {
    this.#slots.move(slot, state.resetting)
  }

  /** A clean connection comes back: to those who are worse off elsewhere, to the head of the queue, to idle. */
  released(slot: Slot<C>, now: number): void {
    if (slot.state !== state.leased && slot.state !== state.resetting) return
    slot.idleAt = now
    slot.provenAt = now
    this.#counters.uses?.record(now - slot.leasedAt)
    const reason = this.#spent(slot, now)
    if (reason) this.#retire(slot, reason)
    else if (!this.#lull.lasts && this.#permits.yields(slot.permit, slot.openedAt)) this.#retire(slot, 'reclaimed')
    else this.#place(slot, now)
  }

  /** The connection is to be closed instead of lent again. */
  destroy(slot: Slot<C>, reason: CloseReason): void {
    if (slot.state !== state.leased && slot.state !== state.resetting) return
    if (reason === 'broken' || reason === 'reset failed') this.#counters.badReturns++
    this.#retire(slot, reason)
  }

  /** The connection has ended by itself. Whoever leases it keeps a dead one; nobody else gets it. */
  lost(slot: Slot<C>, now: number): void {
    if (slot.state === state.closing || slot.state === state.gone || slot.state === state.opening) return
    const waiter = slot.waiter
    slot.waiter = undefined
    this.#idle.remove(slot)
    this.#retire(slot, 'broken')
    // Where one ends by itself, others may have ended without a word.
    this.#suspectBefore = now
    if (waiter?.state === 'waiting') this.#again(waiter, now)
  }

  // ── Closing ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The other side has let go: the permit is free. */
  closed(slot: Slot<C>): void {
    if (slot.state !== state.closing) return
    this.#leave(slot)
  }

  /** Nobody saw the other side let go: the permit stays out of service until somebody has made sure. */
  inDoubt(slot: Slot<C>): void {
    if (this.#slots.doubt(slot)) this.actions.push({ do: 'reap', slot })
  }

  /** Retires every connection of today: idle ones now, leased ones on release, opening ones when they are open. */
  evict(): void {
    this.#generation++
    this.#retireIdle('evicted')
  }

  /** Gives idle connections back, but for `min`. Returns those that are closing now. */
  releaseIdle(): Slot<C>[] {
    const released: Slot<C>[] = []
    for (let slot; this.#aboveMin && (slot = this.#retireOldest('idle'));) released.push(slot)
    return released
  }

  /** Leases that are held for longer than this and have not been reported. */
  leaks(now: number, afterMs: number): Slot<C>[] {
    const leaks = this.#slots.leaks(now, afterMs)
    this.#counters.leaks += leaks.length
    return leaks
  }

  /** New bounds. What is too much by now goes as it becomes idle. */
  resize({ min, max, maxIdle }: { min: number; max: number; maxIdle: number }): void {
    this.#min = min
    this.#max = max
    this.#maxIdle = maxIdle
    while (this.#idle.size > maxIdle || this.#slots.unclosed > max) if (!this.#retireOldest('surplus')) break
  }

  /** Whether a connection with such a permit is idle. */
  hasIdle(which: (permit: Permit) => boolean): boolean {
    return this.#idle.all().some(({ permit }) => which(permit))
  }

  /** Closes the connection that has idled longest, of those with such a permit if that is said, for others. */
  retireIdle(which?: (permit: Permit) => boolean): boolean {
    return this.#retireOldest('reclaimed', which) !== undefined
  }

  /**
   * Looks after the idle ones: too old, or not needed for the whole idle timeout. Called at least every quarter of it;
   * `late` if the event loop was blocked, since nobody could use them in that time.
   */
  sweep(now: number, late: boolean): void {
    for (const slot of this.#idle.all()) {
      const reason = this.#spent(slot, now)
      if (!reason) continue
      this.#idle.remove(slot)
      this.#retire(slot, reason)
    }
    if (now < this.#quarterEndsAt) return
    this.#quarterEndsAt = now + this.#options.idleTimeoutMs / 4
    if (late) return this.#idle.restart()
    let surplus = this.#idle.turn()
    while (surplus-- > 0 && this.#aboveMin) this.#retireOldest('idle')
  }

  /** Stops lending: who waits is refused, what is idle closes, leases may finish. */
  close(closedBy: unknown): void {
    if (this.#phase !== 'open') return
    this.#phase = 'draining'
    this.#closedBy = closedBy
    this.#failAll(new PoolClosedError(this.#options.name, closedBy))
    this.#retireIdle('closed')
    for (const slot of this.#slots) {
      const { waiter } = slot
      slot.waiter = undefined
      if (waiter) this.#fail(waiter, new PoolClosedError(this.#options.name, closedBy))
    }
    this.#closeIfEmpty()
  }

  /** Takes all leases from their holders. Returns how many. */
  revoke(): number {
    let revoked = 0
    for (const slot of this.#slots) {
      if (slot.state !== state.leased && slot.state !== state.resetting) continue
      this.#retire(slot, 'revoked')
      revoked++
    }
    return revoked
  }

  // ── Numbers ────────────────────────────────────────────────────────────────────────────────────────────────────

  get min(): number {
    return this.#min
  }

  get max(): number {
    return this.#max
  }

  get waiting(): number {
    return this.#waiters.size
  }

  get oldestWaiterAt(): number | undefined {
    return this.#waiters.oldest?.queuedAt ?? this.pressedAt
  }

  get opening(): number {
    return this.#slots.count(state.opening)
  }

  get idle(): number {
    return this.#idle.size
  }

  get oldestIdleAt(): number | undefined {
    return this.#idle.oldest?.idleAt
  }

  /** Slots of any state. */
  get size(): number {
    return this.#slots.size
  }

  /** Of those, the ones that only a reaper can end. */
  get doubtful(): number {
    return this.#slots.doubtful
  }

  get phase(): PoolStats['phase'] {
    return this.#phase
  }

  /** Connections that can be lent, now or later. */
  get living(): number {
    return this.#slots.living
  }

  stats(): Omit<PoolStats, 'broker'> {
    return {
      name: this.#options.name,
      phase: this.#phase,
      min: this.#min,
      max: this.#max,
      ...this.#slots.stats(),
      waiting: this.#waiters.size,
      ...this.#counters.snapshot(),
    }
  }

  /** Throws if anything that must always hold does not. Tests call it after every step. */
  assertInvariants(): void {
    const [slots, idle, waiting, phase] = [this.#slots, this.#idle.all(), this.#waiters.size, this.#phase]
    assertInvariants({ slots, idle, waiting, phase, max: this.#max, maxIdle: this.#maxIdle })
  }

  // ── Inside ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The idle connection whose turn it is. Those that are too old are retired on the way. */
  #nextIdle(now: number): Slot<C> | undefined {
    for (;;) {
      const slot = this.#idle.next
      const reason = slot && this.#spent(slot, now)
      if (!slot || !reason) return slot
      this.#idle.remove(slot)
      this.#retire(slot, reason)
    }
  }

  /** Why a connection is not to be lent (again); undefined if it may be. */
  #spent(slot: Slot<C>, now: number): CloseReason | undefined {
    if (this.#phase !== 'open' || this.#refusal) return 'closed'
    if (slot.generation !== this.#generation) return 'evicted'
    if (now >= slot.expiresAt) return 'lifetime'
    if (slot.uses + slot.shared >= this.#options.maxUses) return 'uses'
    return this.#slots.unclosed > this.#max ? 'surplus' : undefined
  }

  #needsPing(slot: Slot<C>, now: number): boolean {
    const { pingAfterIdleMs } = this.#options
    // Two readings of a clock may be the same; 0 means each time nevertheless, but for a new one.
    const always = pingAfterIdleMs === 0 && slot.uses > 0
    return always || now - slot.idleAt > pingAfterIdleMs || slot.provenAt < this.#suspectBefore
  }

  /** Whether there would be enough connections with one less. */
  get #aboveMin(): boolean {
    return this.living + this.#slots.count(state.opening) > this.#min
  }

  /** A connection without a user: to the head of the queue, else idle, else away. */
  #place(slot: Slot<C>, now: number): void {
    const reason = this.#spent(slot, now)
    if (reason) return this.#retire(slot, reason)
    const waiter = this.#waiters.next()
    if (waiter) return this.#options.checkAlways ? this.#check(slot, waiter, now) : this.#serve(waiter, slot, now)
    if (this.#idle.size >= this.#maxIdle) return this.#retire(slot, 'surplus')
    this.#slots.move(slot, state.idle)
    this.#idle.add(slot)
  }

  #serve(waiter: Waiter<Slot<C>>, slot: Slot<C>, now: number): void {
    waiter.settle('served')
    this.#counters.waits.record(now - waiter.queuedAt)
    this.#lease(slot, now)
    this.actions.push({ do: 'serve', waiter, slot })
  }

  #lease(slot: Slot<C>, now: number): void {
    this.#slots.move(slot, state.leased)
    slot.uses++
    slot.leasedAt = now
    slot.leaked = false
    this.#counters.acquires++
  }

  #check(slot: Slot<C>, waiter: Waiter<Slot<C>>, now: number): void {
    const ping = this.#needsPing(slot, now)
    this.#idle.remove(slot)
    this.#slots.move(slot, state.checking)
    slot.waiter = waiter
    this.actions.push({ do: 'check', slot, ping })
  }

  /** A waiter whose connection turned out dead: the next idle one, else back to its place in the queue. */
  #again(waiter: Waiter<Slot<C>>, now: number): void {
    const slot = this.#nextIdle(now)
    if (!slot) {
      const { refusal } = this
      if (refusal) return this.#fail(waiter, refusal)
      this.#waiters.place(waiter)
      // It wanted only what could be had at once.
      if (waiter.deadlineAt <= now) this.actions.push({ do: 'expire', waiter })
    } else if (this.#options.checkAlways || this.#needsPing(slot, now)) this.#check(slot, waiter, now)
    else {
      this.#idle.remove(slot)
      this.#serve(waiter, slot, now)
    }
  }

  #retire(slot: Slot<C>, reason: CloseReason): void {
    this.#slots.move(slot, state.closing)
    slot.closeReason = reason
    this.#counters.closes[reason]++
    this.#permits.closing(slot.permit)
    this.actions.push({ do: 'close', slot, reason })
  }

  #retireIdle(reason: CloseReason): void {
    while (this.#retireOldest(reason));
  }

  #retireOldest(reason: CloseReason, which?: (permit: Permit) => boolean): Slot<C> | undefined {
    const slot = which ? this.#idle.all().find(({ permit }) => which(permit)) : this.#idle.oldest
    if (!slot) return undefined
    this.#idle.remove(slot)
    this.#retire(slot, reason)
    return slot
  }

  #leave(slot: Slot<C>): void {
    this.#slots.move(slot, state.gone)
    this.#permits.give(slot.permit)
    this.#closeIfEmpty()
  }

  #fail(waiter: Waiter<Slot<C>>, error: unknown): void {
    if (!waiter.settle('refused')) return
    this.#counters.refused++
    this.actions.push({ do: 'fail', waiter, error })
  }

  #failAll(error: unknown): void {
    for (let waiter = this.#waiters.next(); waiter; waiter = this.#waiters.next()) this.#fail(waiter, error)
  }

  #closeIfEmpty(): void {
    if (this.#phase === 'draining' && this.#slots.size === 0) this.#phase = 'closed'
  }
}
