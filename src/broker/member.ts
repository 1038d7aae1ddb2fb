import type { MessagePort } from 'node:worker_threads'
import type { Clock, Timer } from '../clock.ts'
import { systemClock } from '../clock.ts'
import type { Identity } from '../driver.ts'
import { BrokerError } from '../errors.ts'
import { Lull } from '../lull.ts'
import type { Permit, Permits, PermitUser } from '../permits.ts'
import type { BrokerStats } from '../stats.ts'
import { longestTickMs, lookAgainAfter } from './allocation.ts'
import { BareTurn } from './bare-turn.ts'
import { bury } from './bury.ts'
import {
  changeMin,
  claimRow,
  closedError,
  findLedger,
  handOver,
  isClosed,
  isConfirmed,
  leaveUnconfirmed,
} from './enrol.ts'
import type { Seat } from './enrol.ts'
import { tell } from './events.ts'
import { header, state, stateOf, tenths } from './layout.ts'
import { close, release } from './ledger.ts'
import { run } from './look.ts'
import { SlotPermit } from './permit.ts'
import { PoolHost } from './pool-host.ts'
import { registers } from './registers.ts'
import type { Registers } from './registers.ts'
import { isLull, isOutdated, runOwed, runRelease } from './release.ts'
import { phases } from './settle.ts'
import { noStats, readStats } from './stats.ts'
import { Wakes } from './wakes.ts'

/** What a member has once it has found its broker. */
interface Place {
  readonly seat: Seat
  readonly user: PermitUser
  readonly r: Registers
  readonly host: PoolHost
  readonly wakes: Wakes
  readonly bareTurn: BareTurn
}

/**
 * A pool's seat in the ledger.
 *
 * State
 *   phase     new → enrolling (has a row, takes nothing) → joined → left; or refused, for good
 *   place     from enrolling on
 *   timer     the safety tick: a giver may die between its grant and its wake, and an idle connection that ripens is
 *             no event to anybody. There is one only while the pool lacks connections or a reaping is to be tried
 *             again; only waiting callers make it keep the process alive
 *   acted     a microtask will settle, unless the pool has done so by then
 */
export class Member implements Permits {
  readonly lull: Lull = new Lull()
  readonly #name: string
  readonly #clock: Clock
  #phase: 'new' | 'enrolling' | 'joined' | 'refused' | 'left' = 'new'
  #place: Place | undefined
  #port: MessagePort | undefined
  #timer: { readonly timer: Timer; readonly at: number; readonly keepAlive: boolean } | undefined
  #acted = false

  constructor(options: { name: string; clock?: Clock | undefined }) {
    this.#name = options.name
    this.#clock = options.clock ?? systemClock
  }

  enrol(user: PermitUser): void {
    const ledger = findLedger(this.#name)
    const seat = claimRow(ledger, { name: this.#name, min: user.min, now: tenths(this.#clock.now()) })
    const { row } = seat
    const host = new PoolHost({
      name: this.#name,
      ledger,
      row,
      user,
      clock: this.#clock,
      reap: (slot, word, identity) => void this.#reap(slot, word, identity),
    })
    const wakes = new Wakes(ledger, row, () => this.#act())
    const bareTurn = new BareTurn(ledger, row)
    const place: Place = { seat, user, r: registers(row, ledger.rows), host, wakes, bareTurn }
    this.#place = place
    this.#phase = 'enrolling'
    this.lull.watch(ledger.words, header.asks)
    this.#port = handOver(seat, (error) => this.#handedOver(place, error))
    if (this.#port) return
    this.#phase = 'joined'
    this.#tell('millpond:join')
    // Wakes are heard from the first settling on, and others may have left something behind.
    queueMicrotask(() => this.#act())
  }

  get unsettled(): boolean {
    const place = this.#place
    if (!place || this.#phase !== 'joined') return false
    return this.#timer !== undefined || isOutdated(place.r, place.host)
  }

  settle(): void {
    const place = this.#place
    if (!place) return
    if (this.#phase === 'joined') {
      if (isClosed(place.seat.ledger)) this.#refuse(place, closedError(this.#name))
      this.#settle(place)
    }
    this.#tick(place)
    this.#noteLull(place)
  }

  yields(permit: Permit, openedAt: number): boolean {
    const place = this.#place
    if (!place || this.#phase !== 'joined' || !(permit instanceof SlotPermit)) return false
    const { r, host, seat } = place
    host.releases(permit, openedAt)
    runRelease(r, seat.ledger, host, phases)
    permit.forOthers = r.yields
    this.#noteLull(place)
    return r.yields
  }

  owes(permit: Permit, openedAt: number): boolean {
    const place = this.#place
    if (!place || this.#phase !== 'joined' || !(permit instanceof SlotPermit)) return false
    const { r, host, seat } = place
    host.releases(permit, openedAt)
    runOwed(r, seat.ledger, host, phases)
    return r.yields
  }

  opened(permit: Permit, identity: Identity): void {
    const place = this.#place
    if (!place || !(permit instanceof SlotPermit) || permit.over) return
    place.host.opened(permit, identity)
    // What could not be reaped for want of a connection can be now.
    if (place.host.retries.size > 0) place.r.unsettled = true
  }

  full(): void {
    const now = this.#clock.now()
    const retryAt = this.#place?.host.gate.refused(now) ?? now
    tell(this.#name, 'millpond:full', () => ({ retryMs: retryAt - now }))
  }

  closing(permit: Permit): void {
    const place = this.#place
    if (!place || !(permit instanceof SlotPermit) || permit.over) return
    const word = close(place.seat.ledger, permit.slot, permit.word)
    permit.since = this.#clock.now()
    permit.forOthers ||= place.host.retiring
    // Only a broker that takes this thread for dead could have been faster.
    if (word === undefined) permit.over = true
    else permit.word = word
  }

  give(permit: Permit): void {
    const place = this.#place
    if (!place || !(permit instanceof SlotPermit) || permit.over || this.#phase !== 'joined') return
    permit.over = true
    if (stateOf(permit.word) === state.closing) place.host.moveCost.closed(this.#clock.now() - permit.since)
    place.r.hand.push({ slot: permit.slot, word: permit.word, used: true, forOthers: permit.forOthers })
    this.lull.known = false
    this.#actSoon()
  }

  resized(min: number): void {
    const place = this.#place
    if (place) changeMin(place.seat, { name: this.#name, min, now: tenths(this.#clock.now()) })
  }

  beginBareReaping(ms: number): boolean {
    return this.#place?.bareTurn.begin(this.#clock.now(), ms) ?? true
  }

  endBareReaping(): void {
    this.#place?.bareTurn.end()
  }

  leave(): void {
    const place = this.#place
    if (!place) return
    const { seat, host } = place
    host.stopped = true
    host.leaving = true
    this.lull.known = false
    // Not confirmed yet: if the broker's thread is faster, there is nothing to clear but the row.
    if (this.#phase === 'joined') this.#settle(place)
    else if (this.#phase === 'enrolling') leaveUnconfirmed(seat)
    this.#phase = 'left'
    bury(seat.ledger, seat.row, seat.life)
    this.#tell('millpond:leave')
    this.#stopTimer()
    place.wakes.end()
    this.#port?.close()
    this.#port = undefined
  }

  #tell(type: 'millpond:join' | 'millpond:leave'): void {
    tell(this.#name, type, () => ({ members: this.stats().members.length }))
  }

  /** How the broker and all its members stand. */
  stats(): BrokerStats {
    const ledger = this.#place?.seat.ledger
    return ledger ? readStats(ledger, this.#name, this.#clock.now()) : noStats(this.#name)
  }

  // ── Settling ───────────────────────────────────────────────────────────────────────────────────────────────────

  #settle({ r, host, seat, wakes }: Place): void {
    r.at = 'start'
    run(r, seat.ledger, host, phases)
    wakes.listen(r.wake)
  }

  /** Whether a release has to ask. All that could end a lull settles, or wakes. */
  #noteLull({ r, host }: Place): void {
    this.lull.known = this.#phase === 'joined' && this.#timer === undefined && isLull(r, host)
    this.lull.seen = r.seenAsks
  }

  /** Settles by itself, and has the pool carry out what was decided. */
  #act(): void {
    if (this.#phase !== 'joined' && this.#phase !== 'enrolling') return
    this.settle()
    this.#place?.user.settled()
  }

  /** The pool settles after each of its own events; this is for those that it has no part in, or forgot. */
  #actSoon(): void {
    if (this.#acted) return
    this.#acted = true
    queueMicrotask(() => {
      this.#acted = false
      if (this.#place && this.#place.r.hand.length > 0) this.#act()
    })
  }

  // ── Time ───────────────────────────────────────────────────────────────────────────────────────────────────────

  #tick({ r, host, user }: Place): void {
    const joined = this.#phase === 'joined'
    const waits = user.waiting > 0
    const enrols = this.#phase === 'enrolling' && waits
    const lacks = joined && host.lacking > 0
    const reaps = joined && host.retries.size > 0
    if (!enrols && !lacks && !reaps) return this.#stopTimer()
    const now = this.#clock.now()
    let at = enrols ? now + longestTickMs : Infinity
    if (lacks) at = now + lookAgainAfter(r.view, r.me, host.move())
    if (reaps) at = Math.min(at, host.nextReapAt)
    if (at === Infinity) return this.#stopTimer()
    const timer = this.#timer
    // One that is due earlier does as well.
    if (timer && timer.at <= at && timer.keepAlive === waits) return
    this.#stopTimer()
    const fire = (): void => {
      this.#timer = undefined
      r.unsettled = true
      if (host.lacking > 0) host.liveness.watch((row) => r.view.members[row]!.held > 0, this.#clock.now())
      this.#act()
    }
    this.#timer = { timer: this.#clock.setTimer(fire, Math.max(0, at - now), waits), at, keepAlive: waits }
  }

  #stopTimer(): void {
    this.#timer?.timer.cancel()
    this.#timer = undefined
  }

  // ── Joining, and being refused ─────────────────────────────────────────────────────────────────────────────────

  #handedOver(place: Place, error: unknown): void {
    if (this.#phase !== 'enrolling') return
    if (isConfirmed(place.seat)) {
      this.#phase = 'joined'
      this.#tell('millpond:join')
      this.#act()
      return
    }
    this.#port?.close()
    this.#port = undefined
    if (!leaveUnconfirmed(place.seat)) {
      // It took so long that the row was given to somebody else: once more.
      this.#place = undefined
      try {
        return this.enrol(place.user)
      } catch (again) {
        this.#phase = 'refused'
        this.#stopTimer()
        return place.user.refuse(again as Error)
      }
    }
    const text = `Cannot join the broker "${this.#name}": the thread that made it does not answer. Has it ended?`
    const cause = error === undefined ? undefined : { cause: error }
    this.#refuse(
      place,
      isClosed(place.seat.ledger) ? closedError(this.#name) : new BrokerError('ERR_NO_BROKER', text, cause),
    )
    this.#phase = 'refused'
    this.#stopTimer()
  }

  /** From now on the pool can have nothing; what it has it gives back as it closes. */
  #refuse({ user, host }: Place, error: BrokerError): void {
    if (host.stopped) return
    host.stopped = true
    user.refuse(error)
  }

  // ── Reaping ────────────────────────────────────────────────────────────────────────────────────────────────────

  async #reap(slot: number, word: number, identity: Identity): Promise<void> {
    const place = this.#place
    if (!place) return
    const startedAt = this.#clock.now()
    let ended = false
    place.host.reapings++
    try {
      ended = await place.user.reap(identity)
    } catch {
      // As good as "could not be found out".
    }
    place.host.reapings--
    const durationMs = this.#clock.now() - startedAt
    tell(this.#name, 'millpond:reap', () => ({ connection: identity.tag, ended, durationMs }))
    // Who has left by now has left this to others too.
    if (this.#phase !== 'joined') return
    const { r, host, seat } = place
    // There may be more that waited for this one.
    r.unsettled = true
    if (ended) {
      host.retries.succeeded(slot)
      r.hand.push({ slot, word, used: true, forOthers: false })
    } else {
      const limbo = release(seat.ledger, slot, word)
      if (limbo !== undefined) host.retries.failed(slot, limbo, this.#clock.now(), place.user.living > 0)
    }
    this.#act()
  }
}

/** A seat in the broker of this name. It is looked for when the pool enrols, not before. */
export function joinBroker(options: { name: string; clock?: Clock | undefined }): Member {
  return new Member(options)
}
