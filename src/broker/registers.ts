import { nobody } from './allocation.ts'
import type { MemberView, View } from './allocation.ts'
import type { Ledger } from './layout.ts'

/**
 * Where a member stands in the protocol. Each phase is at most one access to shared memory, or one effect on the pool;
 * a thread may die, and others may do anything, between any two.
 */
export type Phase =
  | 'rest'
  // settle.ts: what is there for me
  | 'start'
  | 'asks'
  | 'limit'
  | 'slots used'
  | 'own want'
  | 'scan'
  | 'pick up'
  | 'look up taker'
  | 'take'
  | 'mute'
  | 'wake muted'
  | 'reap'
  | 'place'
  // settle.ts: what I show and ask for
  | 'show'
  | 'ask'
  // look.ts: how all members stand
  | 'look'
  | 'look at slot'
  | 'look at life'
  | 'look at want'
  | 'look at since'
  | 'look at opening'
  | 'look at idle'
  | 'look at idle since'
  | 'look at min'
  // settle.ts: what I give
  | 'decide'
  | 'grant'
  | 'wake taker'
  | 'check taker'
  | 'take back'
  | 'renew'
  | 'free'
  | 'wake asker'
  | 'trim'
  | 'retire'
  | 'wake donor'
  | 'finish'
  // release.ts: the hot path
  | 'release'
  | 'show idle'
  | 'load asks'
  | 'judge'
  // calm.ts: nobody else wants anything
  | 'calm'
  | 'calm renew'
  | 'calm free'
  | 'calm look'
  | 'calm take'
  | 'calm asks'

/** A permit without a connection. */
export interface InHand {
  readonly slot: number
  word: number
  /** The life of it is over: it may not be opened with before it is renewed. */
  used: boolean
  /** Its connection was closed for others: they come first. */
  readonly forOthers: boolean
}

/**
 * A member's registers: plain values, so that a test can copy them and run any phase at any time.
 *
 * Between two runs these remain:
 *   seenAsks, othersWant   how `asks` stood, and whether anybody else was seen wanting, at the end of the last run
 *   shown                  what its row shows; nobody else writes it, but for `want` (see `mute`)
 *   lastDonor              whom it woke last for an idle connection
 *   limit, slotsUsed       how many permits there are, and were at the most, when it last settled
 *   hand                   permits in state HELD or CLOSING(me) that the pool does not know of (any more)
 */
export interface Registers {
  readonly me: number
  at: Phase
  seenAsks: number
  othersWant: boolean
  readonly shown: Shown
  readonly hand: InHand[]
  lastDonor: number
  limit: number
  slotsUsed: number

  // One run
  /** The wake word, as it was before anything else was looked at. */
  wake: number
  asks: number
  /** No wake has been heard, and nobody seen wanting: unless somebody has asked since, the short way will do. */
  calm: boolean
  /** The slot or row under the cursor, and the word that was read there. */
  cursor: number
  word: number
  /** Rows to look at. */
  rows: number
  readonly view: View
  /** Where `look` goes on. */
  after: 'decide' | 'judge'
  /** The member that a permit is being given to, or that is being woken. */
  to: number
  /** A permit was freed: who wants is to be woken. */
  freed: boolean
  donorWoken: boolean
  /** Whether the connection that is being released is owed elsewhere. */
  yields: boolean
  /** A release has found that there is something to settle. */
  unsettled: boolean
}

/** A row, as its owner last wrote it. */
export interface Shown {
  want: number
  since: number
  idle: number
  idleSince: number
  opening: number
}

/**
 * What the protocol asks of, and does to, the pool and the thread around it. Nothing here touches a word that the
 * crossing of two members rests on: what `heard`, `hasRoom` and `mayTakeFree` read or write are hints.
 */
export interface Host {
  /** The time, as the ledger keeps it. */
  now(): number
  /** What a move costs, in ms. */
  move(): number
  readonly min: number
  /** Acquires in its queue. */
  readonly waiting: number
  readonly lacking: number
  /** Since when the oldest of those who want has wanted. */
  readonly since: number
  readonly idle: number
  readonly idleSince: number
  readonly opening: number
  /** The slot of the connection that is being released, and how long it has been open. */
  readonly releasing: number
  readonly openFor: number
  /** Whether the server takes another connection, as far as is known. */
  readonly hasRoom: boolean
  /** Whether a free permit may be taken, beside so many in hand: always, while it does. */
  mayTakeFree(inHand: number): boolean
  /** Whether this very word of a slot has been there for so long that its owner cannot be counted on. */
  isStuck(slot: number, word: number): boolean
  /** Whether to try and end the session that this permit was left with. */
  mayReap(slot: number, word: number): boolean
  open(slot: number, word: number): void
  reap(slot: number, word: number): void
  /** Closes the oldest idle connection (HELD → CLOSING); false if there is none. */
  retire(): boolean
  /** Whether an idle connection has a slot beyond the limit. */
  exceeds(limit: number): boolean
  /** Closes such a one. */
  trim(limit: number): void
  /** A wake has been heard. */
  heard(wakes: number): void
  /** For those who count. */
  moved(to: number): void
}

export type PhaseOf = (r: Registers, ledger: Ledger, host: Host) => void

export function registers(me: number, rows: number): Registers {
  return {
    me,
    at: 'rest',
    seenAsks: -1,
    othersWant: false,
    shown: { want: 0, since: 0, idle: 0, idleSince: 0, opening: 0 },
    hand: [],
    wake: 0,
    asks: 0,
    calm: false,
    cursor: 0,
    word: 0,
    rows: 0,
    view: { members: Array.from({ length: rows }, emptyMember), size: 0, supply: 0, move: 0 },
    after: 'decide',
    to: 0,
    freed: false,
    donorWoken: false,
    lastDonor: nobody,
    limit: 0,
    slotsUsed: 0,
    yields: false,
    unsettled: false,
  }
}

export function emptyMember(): MemberView {
  return { alive: false, want: 0, waited: 0, held: 0, granted: 0, opening: 0, idle: 0, idled: 0, min: 0 }
}
