import type { Linked } from './deque.ts'
import type { Permit } from './permits.ts'
import type { CloseReason } from './stats.ts'
import type { Waiter } from './waiters.ts'

/** What a slot is at. Numbers: a lease moves its slot twice. */
export const state = {
  /** The driver is connecting. */
  opening: 0,
  /** May be lent. */
  idle: 1,
  /** Being looked at on the way out. */
  checking: 2,
  /** With a user. */
  leased: 3,
  /** Being cleaned on the way in. */
  resetting: 4,
  /** Until the server has let go. */
  closing: 5,
  /** The permit has been given back. */
  gone: 6,
} as const

export type State = (typeof state)[keyof typeof state]

export const stateNames = Object.keys(state) as readonly (keyof typeof state)[]

const { idle, checking, leased, resetting, closing, gone } = state

/** Where each state may lead to, one bit each. From opening to gone: none was opened. */
const moves: readonly number[] = [
  bits(idle, checking, leased, closing, gone),
  bits(checking, leased, closing),
  bits(idle, checking, leased, closing),
  bits(idle, checking, leased, resetting, closing),
  bits(idle, checking, leased, closing),
  bits(gone),
  bits(),
]

function bits(...states: State[]): number {
  return states.reduce<number>((all, one) => all | (1 << one), 0)
}

/** One permit's record: at most one connection, and everything the pool knows of it. `move` alone writes the state. */
export class Slot<C> implements Linked<Slot<C>> {
  readonly permit: Permit
  /** Written by `move` only. */
  state: State = state.opening
  /** Set from the end of opening on. */
  connection: C | undefined
  openedAt = 0
  /** The round of attempts in which it began to open. */
  readonly round: number
  /** Which generation of connections it is of; older ones are retired. */
  readonly generation: number
  /** When it is to be replaced; drawn once, when it opens. */
  expiresAt: number = Infinity
  /** When it was last put back by a user; a ping does not count. */
  idleAt = 0
  /** When it last was known to work: opened, pinged or released. */
  provenAt = 0
  /** Leases so far; tells a lease whether the slot is still its own. */
  uses = 0
  /** How many more callers than leases it has served. */
  shared = 0
  leasedAt = 0
  /** Whether its connection keeps the process alive; and whether it came back in this turn (see refs.ts). */
  holdsProcess = true
  back = false
  /** Where it was acquired, while leaks are looked for. */
  trace: Error | undefined
  /** Reported as a leak already, or meant to be held. */
  leaked = false
  /** While checking: whom the connection is for. Undefined if the waiter has left meanwhile. */
  waiter: Waiter<Slot<C>> | undefined
  /** From closing on. */
  closeReason: CloseReason | undefined
  /** What made it close, for those who watch. */
  note: unknown
  /** Closing, and nobody saw the other side let go. */
  doubtful = false

  next: Slot<C> | undefined
  previous: Slot<C> | undefined
  deque: object | undefined

  constructor(permit: Permit, { round, generation }: { round: number; generation: number }) {
    this.permit = permit
    this.round = round
    this.generation = generation
  }
}

/** The only writer of a slot's state. */
export function move<C>(slot: Slot<C>, to: State): void {
  const from = slot.state
  if (((moves[from]! >> to) & 1) === 0) {
    throw new Error(`bug: a slot cannot move from ${stateNames[from]} to ${stateNames[to]}`)
  }
  slot.state = to
}
