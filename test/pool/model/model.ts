import type { CoreOptions } from '../../../src/options.ts'
import { Counters } from '../../../src/counters.ts'
import type { Slot } from '../../../src/slot.ts'
import type { CloseReason } from '../../../src/stats.ts'
import type { Waiter } from '../../../src/waiters.ts'

// What the core is to decide, with plain lists, filters and sorting, and nothing clever.

export type State = 'opening' | 'idle' | 'checking' | 'leased' | 'resetting' | 'closing' | 'gone'

/** What the model knows of a slot. */
export interface Place {
  readonly slot: Slot<object>
  readonly generation: number
  /** In which round of failures it began to open. */
  readonly round: number
  state: State
  openedAt: number
  idleAt: number
  provenAt: number
  expiresAt: number
  leasedAt: number
  uses: number
  leaked: boolean
  doubtful: boolean
  /** Whom it is being checked for. */
  for: Asker | undefined
}

/** What the model knows of a waiter. */
export interface Asker {
  readonly waiter: Waiter<Slot<object>>
  /** Its turn. */
  readonly turn: number
  readonly deadlineAt: number
  /** The pool's own: it stands before all others, and nothing is opened for it. */
  own: boolean
  state: 'waiting' | 'answered'
}

export class Model {
  readonly options: CoreOptions
  phase: 'open' | 'draining' | 'closed' = 'open'
  /** The permits can never be had. */
  refused = false
  /** Somebody elsewhere is worse off. */
  yields = false
  now = 0
  min: number
  max: number
  maxIdle: number
  waiting: Asker[] = []
  idle: Place[] = []
  /** All that hold a permit, … */
  places: Place[] = []
  /** … and some that did. */
  gone: Place[] = []
  generation = 0
  suspectBefore = -Infinity
  /** The last attempt to connect has failed … */
  failing = false
  /** … so many times in a row, … */
  failures = 0
  /** … of which those that ran side by side are one. */
  round = 0
  until = -Infinity
  /** How many were idle at any time of each quarter of the idle timeout. */
  quarters: number[][] = [[0], [0], [0], [0]]
  quarter: number[] = [0]
  quarterEndsAt = -Infinity
  /** What it has decided since somebody last looked, a line each. */
  readonly decisions: string[] = []
  readonly counts = {
    acquires: 0,
    opens: 0,
    openFailures: 0,
    timeouts: 0,
    aborted: 0,
    refused: 0,
    badReturns: 0,
    leaks: 0,
  }
  readonly closes = new Counters(false).closes

  constructor(options: CoreOptions) {
    this.options = options
    this.min = options.min
    this.max = options.max
    this.maxIdle = options.maxIdle
  }

  // ── What can be seen ───────────────────────────────────────────────────────────────────────────────────────────

  in(...states: State[]): Place[] {
    return this.places.filter(({ state }) => states.includes(state))
  }

  count(...states: State[]): number {
    return this.in(...states).length
  }

  get size(): number {
    return this.places.length
  }

  get living(): number {
    return this.count('idle', 'checking', 'leased', 'resetting')
  }

  /** Connections that could be given back without falling below `min`. */
  get spare(): number {
    return Math.max(0, this.living + this.count('opening') - this.min)
  }

  get lackingSoon(): number {
    if (this.phase !== 'open' || this.refused) return 0
    const opening = this.count('opening')
    const users = this.waiting.filter(({ own }) => !own).length
    const wanted = Math.max(users - opening, this.min - this.living - opening)
    const room = Math.max(0, Math.min(wanted, this.max - this.size))
    if (this.failures === 0) return room
    return opening > 0 ? 0 : Math.min(room, 1)
  }

  get lacking(): number {
    return this.now < this.until ? 0 : this.lackingSoon
  }

  get retryAt(): number | undefined {
    return this.failures > 0 && this.lackingSoon > 0 ? this.until : undefined
  }

  get numbers(): Record<string, unknown> {
    return {
      phase: this.phase,
      min: this.min,
      max: this.max,
      open: this.living,
      opening: this.count('opening'),
      idle: this.idle.length,
      leased: this.count('leased'),
      closing: this.count('closing'),
      doubtful: this.places.filter(({ doubtful }) => doubtful).length,
      waiting: this.waiting.length,
      ...this.counts,
      closes: this.closes,
    }
  }

  phaseOf(asker: Asker): string {
    const place = this.waiting.indexOf(asker)
    if (place < 0) return 'ping'
    if (place < this.count('opening') || this.failures > 0) return 'connect'
    return this.size >= this.max ? 'queue' : 'permit'
  }

  /** Why a connection is not lent any more. */
  spent(place: Place): CloseReason | undefined {
    if (this.phase !== 'open' || this.refused) return 'closed'
    if (place.generation !== this.generation) return 'evicted'
    if (this.now >= place.expiresAt) return 'lifetime'
    if (place.uses >= this.options.maxUses) return 'uses'
    return this.size - this.count('closing') > this.max ? 'surplus' : undefined
  }

  needsPing({ idleAt, provenAt, uses }: Place): boolean {
    const { pingAfterIdleMs } = this.options
    if (pingAfterIdleMs === 0 && uses > 0) return true
    return this.now - idleAt > pingAfterIdleMs || provenAt < this.suspectBefore
  }

  // ── What is done with connections ──────────────────────────────────────────────────────────────────────────────

  open(slot: Slot<object>): void {
    this.places.push({
      slot,
      generation: this.generation,
      round: this.round,
      state: 'opening',
      openedAt: this.now,
      idleAt: 0,
      provenAt: 0,
      expiresAt: Infinity,
      leasedAt: 0,
      uses: 0,
      leaked: false,
      doubtful: false,
      for: undefined,
    })
    this.decisions.push(`open ${slot.permit.tag}`)
  }

  failed({ round }: Place): void {
    this.failing = true
    if (round < this.round) return
    this.round++
    this.until = this.now + (this.failures === 0 ? 0 : Math.min(5_000, 50 * 2 ** (this.failures - 1)))
    this.failures++
  }

  succeeded(): void {
    this.failing = false
    this.failures = 0
    this.until = -Infinity
  }

  /** Out of idle, or into it; how many there are now is noted. */
  move(place: Place, state: State): void {
    const idle = this.idle.filter((one) => one !== place)
    if (state === 'idle') idle.push(place)
    if (idle.length < this.idle.length) this.quarter.push(idle.length)
    this.idle = idle
    place.state = state
  }

  close(place: Place, reason: CloseReason): void {
    this.move(place, 'closing')
    this.closes[reason]++
    this.decisions.push(`close ${place.slot.permit.tag} ${reason}`)
  }

  /** Its permit is free. */
  leave(place: Place): void {
    place.state = 'gone'
    this.places = this.places.filter((one) => one !== place)
    this.gone = [...this.gone.slice(-3), place]
  }

  closeAll(places: Place[], reason: CloseReason): void {
    for (const place of places) this.close(place, reason)
  }

  doubt(place: Place): void {
    if (place.doubtful) return
    place.doubtful = true
    this.decisions.push(`reap ${place.slot.permit.tag}`)
  }

  lend(place: Place): void {
    this.move(place, 'leased')
    place.uses++
    place.leasedAt = this.now
    place.leaked = false
    this.counts.acquires++
  }

  /** The idle one whose turn it is; what cannot be lent any more goes on the way. */
  next(): Place | undefined {
    for (;;) {
      const place = this.idle.at(this.options.order === 'lifo' ? -1 : 0)
      const reason = place && this.spent(place)
      if (!place || !reason) return place
      this.close(place, reason)
    }
  }

  /** One without a user: to who has waited longest, else idle, else away. */
  put(place: Place): void {
    const reason = this.spent(place)
    if (reason) return this.close(place, reason)
    const asker = this.waiting.shift()
    if (asker) return this.options.checkAlways ? this.check(place, asker) : this.serve(asker, place)
    if (this.idle.length >= this.maxIdle) return this.close(place, 'surplus')
    this.move(place, 'idle')
  }

  sweep(late: boolean): void {
    for (const place of this.idle) {
      const reason = this.spent(place)
      if (reason) this.close(place, reason)
    }
    if (this.now < this.quarterEndsAt) return
    this.quarterEndsAt = this.now + this.options.idleTimeoutMs / 4
    // Nothing is known of the time in which the event loop was blocked.
    this.quarters = late ? [[0], [0], [0], [0]] : [...this.quarters.slice(1), this.quarter]
    this.quarter = [this.idle.length]
    const unneeded = Math.min(...this.quarters.flat())
    this.closeAll(this.idle.slice(0, Math.min(unneeded, this.spare)), 'idle')
  }

  // ── What is done with waiters ──────────────────────────────────────────────────────────────────────────────────

  get refusal(): string | undefined {
    if (this.phase !== 'open') return 'closed'
    return this.refused ? 'refused' : undefined
  }

  ask(asker: Asker): void {
    const { refusal } = this
    if (refusal) return this.fail(asker, refusal)
    const place = this.next()
    if (place) return this.check(place, asker)
    if (!asker.own && this.waiting.length >= this.options.maxWaiting) this.fail(asker, 'full')
    else this.queue(asker)
  }

  /** The pool's own first, each in turn. */
  queue(asker: Asker): void {
    const rank = ({ own, turn }: Asker): number => (own ? turn - 1e9 : turn)
    this.waiting = [...this.waiting, asker].toSorted((a, b) => rank(a) - rank(b))
  }

  check(place: Place, asker: Asker): void {
    this.decisions.push(`check ${place.slot.permit.tag}${this.needsPing(place) ? ' with a ping' : ''}`)
    this.move(place, 'checking')
    place.for = asker
  }

  serve(asker: Asker, place: Place): void {
    asker.state = 'answered'
    this.lend(place)
    this.decisions.push(`serve ${asker.turn} ${place.slot.permit.tag}`)
  }

  fail(asker: Asker, why: string): void {
    asker.state = 'answered'
    this.counts.refused++
    this.decisions.push(`fail ${asker.turn} ${why}`)
  }

  failAll(why: string): void {
    for (const asker of this.waiting.splice(0)) this.fail(asker, why)
  }

  /** Its connection was of no use: the next one, or back to where its turn is. */
  again(asker: Asker): void {
    const place = this.next()
    if (!place) {
      if (this.refusal) return this.fail(asker, this.refusal)
      this.queue(asker)
      if (asker.deadlineAt <= this.now) this.decisions.push(`expire ${asker.turn}`)
    } else if (this.options.checkAlways || this.needsPing(place)) this.check(place, asker)
    else this.serve(asker, place)
  }

  /** Whom a connection was being checked for, if that one still waits. */
  takeAsker(place: Place): Asker | undefined {
    const asker = place.for
    place.for = undefined
    return asker?.state === 'waiting' ? asker : undefined
  }

  /** Gives up. False if it was answered already. */
  giveUp(asker: Asker): boolean {
    if (asker.state !== 'waiting') return false
    asker.state = 'answered'
    this.waiting = this.waiting.filter((one) => one !== asker)
    return true
  }
}
