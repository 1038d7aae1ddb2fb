import type { Linked } from './deque.ts'
import type { Permit } from './permits.ts'
import type { CloseReason } from './stats.ts'
import type { Waiter } from './waiters.ts'

// Legal moves:
//
//   opening    the driver is connecting                         → idle, checking, leased, closing, gone (none was opened)
//   idle       may be lent                                      → checking, leased, closing
//   checking   being looked at on the way out                   → idle, checking, leased, closing
//   leased     with a user                                      → idle, checking, leased, resetting, closing
//   resetting  being cleaned on the way in                      → idle, checking, leased, closing
//   closing    until the server has let go                      → gone
//   gone       the permit has been given back
const moves: Readonly<Record<SlotState, readonly SlotState[]>> = {
  opening: ['idle', 'checking', 'leased', 'closing', 'gone'],
  idle: ['checking', 'leased', 'closing'],
  checking: ['idle', 'checking', 'leased', 'closing'],
  leased: ['idle', 'checking', 'leased', 'resetting', 'closing'],
  resetting: ['idle', 'checking', 'leased', 'closing'],
  closing: ['gone'],
  gone: [],
}

export type SlotState = 'opening' | 'idle' | 'checking' | 'leased' | 'resetting' | 'closing' | 'gone'

/** One permit's record: at most one connection, and everything the pool knows of it. `move` alone writes the state. */
export class Slot<C> implements Linked<Slot<C>> {
  readonly permit: Permit
  /** Written by `move` only. */
  state: SlotState = 'opening'
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
  leasedAt = 0
  /** Where it was acquired, while leaks are looked for. */
  trace: Error | undefined
  /** Reported as a leak already. */
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
export function move<C>(slot: Slot<C>, to: SlotState): void {
  if (!moves[slot.state].includes(to)) throw new Error(`bug: a slot cannot move from ${slot.state} to ${to}`)
  slot.state = to
}
