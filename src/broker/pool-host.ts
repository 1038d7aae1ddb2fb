import type { Clock } from '../clock.ts'
import type { Identity } from '../driver.ts'
import type { Permit, PermitUser } from '../permits.ts'
import { tell } from './events.ts'
import { Gate } from './gate.ts'
import { at, header, pidOf, secretOf, state, stateOf, tagOf, tenths, wordOf } from './layout.ts'
import type { Field, Ledger } from './layout.ts'
import { isAlive } from './ledger.ts'
import { Liveness } from './liveness.ts'
import { Memory } from './memory.ts'
import { MoveCost } from './move-cost.ts'
import { SlotPermit } from './permit.ts'
import type { Host } from './registers.ts'
import { Retries } from './retries.ts'

/** A grant that was not picked up for so long is its giver's to give again: whoever was to be woken may be blocked. */
const stuckGrantMs = 50
/** A close that takes so much longer than a move is not counted on any more. */
const stuckCloseMoves = 10
const stuckCloseMs = 250

interface PoolHostDetails {
  readonly name: string
  readonly ledger: Ledger
  readonly row: number
  readonly user: PermitUser
  readonly clock: Clock
  /** A session that a lost member left behind is to be ended. */
  readonly reap: (slot: number, word: number, identity: Identity) => void
}

/** A real pool, as the protocol sees it. */
export class PoolHost implements Host {
  readonly moveCost: MoveCost
  readonly retries: Retries = new Retries()
  readonly gate: Gate
  readonly liveness: Liveness
  /** Reapings under way. */
  reapings = 0
  /** True once the pool can use no permit any more: what it has goes back. */
  stopped = false
  /** True while the pool leaves: it cannot wait for a reaping any more. */
  leaving = false
  /** The slot of the connection that is being released. */
  releasing = 0
  /** An idle connection is being closed for others. */
  retiring = false

  readonly #ledger: Ledger
  readonly #name: string
  readonly #row: number
  readonly #user: PermitUser
  readonly #clock: Clock
  readonly #reap: PoolHostDetails['reap']
  readonly #seen = new Memory()
  /** When the connection that is being released was opened. */
  #openedAt = 0
  /** Since when connections are lacking that no waiter waits for, but `min`. */
  #lackingSince: number | undefined

  constructor(details: PoolHostDetails) {
    this.#ledger = details.ledger
    this.#name = details.name
    this.#row = details.row
    this.#user = details.user
    this.#clock = details.clock
    this.#reap = details.reap
    this.moveCost = new MoveCost(details.ledger)
    this.gate = new Gate(details.ledger)
    this.liveness = new Liveness(details.ledger, details.row)
  }

  now(): number {
    return tenths(this.#clock.now())
  }

  move(): number {
    return this.moveCost.ms
  }

  get min(): number {
    return this.#user.min
  }

  get waiting(): number {
    return this.#user.waiting
  }

  get lacking(): number {
    return this.stopped ? 0 : Math.max(0, this.#user.lacking)
  }

  get since(): number {
    const oldest = this.#user.oldestWaiterAt
    if (oldest !== undefined) {
      this.#lackingSince = undefined
      return tenths(oldest)
    }
    this.#lackingSince ??= this.now()
    return this.#lackingSince
  }

  get idle(): number {
    return this.#user.idle
  }

  get idleSince(): number {
    return tenths(this.#user.oldestIdleAt ?? 0)
  }

  get opening(): number {
    return this.#user.opening
  }

  /** What `releasing` and `openFor` speak of, until the next one. */
  releases(permit: SlotPermit, openedAt: number): void {
    this.releasing = permit.slot
    this.#openedAt = openedAt
  }

  get openFor(): number {
    return this.#clock.now() - this.#openedAt
  }

  get hasRoom(): boolean {
    return this.gate.isOpen
  }

  mayTakeFree(inHand: number): boolean {
    return this.gate.allows(inHand + this.#user.opening, this.#clock.now())
  }

  isStuck(slot: number, word: number): boolean {
    const age = this.#seen.age(slot, word, this.#clock.now())
    if (stateOf(word) === state.granted) return age > stuckGrantMs
    return age > Math.max(stuckCloseMs, stuckCloseMoves * this.moveCost.ms)
  }

  mayReap(slot: number, word: number): boolean {
    if (this.leaving) return false
    if (this.#reapsBare) return false
    const now = this.#clock.now()
    const has = this.#user.living > 0
    // Nobody is about to have a connection to do it through, so there is nothing to wait for.
    const alone = !has && !this.#anyHeld
    // Who has an idle connection needs none for it, and is sure at once.
    const leaves = !alone && (!has || (this.#user.idle === 0 && this.#othersIdle))
    if (leaves && this.retries.giveWay(slot, word, now)) return false
    return this.retries.allows(slot, word, { now, has, alone })
  }

  open(slot: number, word: number): void {
    this.#lackingSince = undefined
    // What is beside the slot is of its last life. Without a pid, a reaper goes by the tag.
    Atomics.store(this.#ledger.words, pidOf(slot), 0)
    Atomics.store(this.#ledger.words, secretOf(slot), 0)
    this.#user.open(new SlotPermit(this.#ledger, slot, word, this.#clock.now()))
  }

  opened(permit: SlotPermit, identity: Identity): void {
    Atomics.store(this.#ledger.words, secretOf(permit.slot), identity.secret | 0)
    Atomics.store(this.#ledger.words, pidOf(permit.slot), identity.pid | 0)
    this.moveCost.connected(this.#clock.now() - permit.since)
    this.gate.passed()
  }

  reap(slot: number, word: number): void {
    const { words } = this.#ledger
    const identity: Identity = {
      pid: Atomics.load(words, pidOf(slot)) >>> 0,
      secret: Atomics.load(words, secretOf(slot)) >>> 0,
      tag: tagOf(this.#ledger, slot, word),
    }
    this.#reap(slot, word, identity)
  }

  retire(): boolean {
    this.retiring = true
    try {
      return this.#user.retireIdle()
    } finally {
      this.retiring = false
    }
  }

  exceeds(limit: number): boolean {
    return this.#user.hasIdle((permit) => isBeyond(permit, limit))
  }

  trim(limit: number): void {
    this.#user.retireIdle((permit) => isBeyond(permit, limit))
  }

  heard(wakes: number): void {
    this.liveness.heard(wakes)
  }

  moved(to: number): void {
    Atomics.add(this.#ledger.words, header.moves, 1)
    tell(this.#name, 'millpond:move', () => ({ from: this.#threadOf(this.#row), to: this.#threadOf(to) }))
    this.#count(this.#row, 'given')
    this.#count(to, 'received')
  }

  /** When the next reaping that has failed is to be tried again; Infinity if none is. */
  get nextReapAt(): number {
    // Its end is an event of its own.
    if (this.#reapsBare) return Infinity
    this.retries.prune((slot) => Atomics.load(this.#ledger.words, wordOf(slot)))
    return this.retries.nextAt
  }

  /** With nothing to reap through, a reaping has a connection of its own beside the one in doubt: one at a time. */
  get #reapsBare(): boolean {
    return this.#user.living === 0 && this.reapings > 0
  }

  get #othersIdle(): boolean {
    const rows = Atomics.load(this.#ledger.words, header.rowsUsed)
    for (let row = 0; row < rows; row++) {
      if (row === this.#row || !isAlive(this.#ledger, row)) continue
      if (Atomics.load(this.#ledger.words, at(this.#ledger, row, 'idle')) > 0) return true
    }
    return false
  }

  /** Whether anybody has a connection, or is about to. */
  get #anyHeld(): boolean {
    const slots = Atomics.load(this.#ledger.words, header.slotsUsed)
    for (let slot = 0; slot < slots; slot++) {
      const its = stateOf(Atomics.load(this.#ledger.words, wordOf(slot)))
      if (its === state.held || its === state.granted) return true
    }
    return false
  }

  #threadOf(row: number): number {
    return Atomics.load(this.#ledger.words, at(this.#ledger, row, 'thread'))
  }

  #count(row: number, name: Extract<Field, 'given' | 'received'>): void {
    Atomics.add(this.#ledger.words, at(this.#ledger, row, name), 1)
  }
}

function isBeyond(permit: Permit, limit: number): boolean {
  return permit instanceof SlotPermit && permit.slot >= limit
}
