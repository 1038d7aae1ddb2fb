import { Lull } from './lull.ts'
import type { Identity } from './driver.ts'
import type { BrokerStats } from './stats.ts'

/** The right to have one connection, from before it is opened until the server has let it go. */
export interface Permit {
  /**
   * Unique among all permits ever; the connection opened with it carries it as its tag. `mp…-…-…`, of digits and
   * small letters, so that a tag is known for one.
   */
  readonly tag: string
}

/**
 * What permits may ask of the pool that uses them, and tell it. Every answer holds for this instant; nothing waits.
 * Times are those of the pool's clock, in milliseconds.
 */
export interface PermitUser {
  /** Connections that are never taken away. */
  readonly min: number
  /** Acquires in the queue, and one more while it is known that one more connection would be of use. */
  readonly waiting: number
  /** When the acquire at the head of the queue was queued, or since when it is known that one more would be of use; undefined if neither. */
  readonly oldestWaiterAt: number | undefined
  /** Openings under way. */
  readonly opening: number
  /** Connections that can be lent, now or later. */
  readonly living: number
  /** Idle connections. */
  readonly idle: number
  /** Since when the connection that has idled longest has been idle; undefined if there is none. */
  readonly oldestIdleAt: number | undefined
  /** How many more connections the pool would open now if it had the permits: for waiters first, then for `min`. */
  readonly lacking: number
  /** Opens a connection with this permit. Called only while `lacking` is above 0. */
  open(permit: Permit): void
  /** Whether there is an idle connection with such a permit. */
  hasIdle(which: (permit: Permit) => boolean): boolean
  /**
   * Closes the connection that has idled longest, of those with such a permit if that is said; false if there is none.
   * `min` is the caller's to respect.
   */
  retireIdle(which?: (permit: Permit) => boolean): boolean
  /** The permits have acted by themselves (a wake, a tick): what they decided is to be carried out now. */
  settled(): void
  /** The permits can never serve this pool (any more): all waiters fail with this error, later ones too. */
  refuse(error: Error): void
  /** Ends a session that a dead member left behind; true once the server does not count it any more. */
  reap(identity: Identity): Promise<boolean>
}

/**
 * Who limits a pool. The pool reports what happens; the permits decide who may open and who has to give back.
 * All calls are synchronous, and none of them calls back but `settle`.
 */
export interface Permits {
  /** Spares a release the two questions below, while it lasts. */
  readonly lull: Lull
  /** Called once, with the first use of the pool. Throws (`BrokerError`) if the permits can never be had. */
  enrol(user: PermitUser): void
  /** Whether `settle` has anything to look at since it last ran. Cheap enough for every release. */
  readonly unsettled: boolean
  /** Looks at everything again: opens with what may be had, gives back what others are owed. */
  settle(): void
  /**
   * A lease of this permit's connection has ended and the connection could be lent again. True: close it instead,
   * somebody elsewhere is worse off. `openedAt` is when it was opened.
   */
  yields(permit: Permit, openedAt: number): boolean
  /** As `yields`, of a connection that stays leased for now: nobody is told that it could be had. Without, nobody is owed one. */
  owes?(permit: Permit, openedAt: number): boolean
  /** The connection is open; this is how it can be known again should this thread die. */
  opened(permit: Permit, identity: Identity): void
  /** The server has no room for another connection, whoever asks. */
  full?(): void
  /** The connection begins to close: the permit is out of service until it is given. */
  closing(permit: Permit): void
  /** The server has let the connection go (or there never was one): the permit is free again. */
  give(permit: Permit): void
  /** The pool is to keep so many connections from now on. Throws (`BrokerError`) if there is no room for them. */
  resized?(min: number): void
  /**
   * Asks to reap with a connection that has no permit, for so long at the most: false while somebody else does. Without
   * these two the pool is alone.
   */
  beginBareReaping?(ms: number): boolean
  endBareReaping?(): void
  /** The pool is closed. Permits still out (connections in doubt) are left for others to reap. */
  leave(): void
  /** The numbers of all who share the limit, where it is shared. */
  stats?(): BrokerStats
}

let counter = 0
const nonce = Math.trunc(Math.random() * 2 ** 48).toString(36)

/** No limit but the pool's own `max`: as many permits as it asks for. */
export class LocalPermits implements Permits {
  readonly lull: Lull = new Lull()
  readonly unsettled = false
  #user: PermitUser | undefined

  constructor() {
    this.lull.known = true
  }

  enrol(user: PermitUser): void {
    this.#user = user
  }

  settle(): void {
    const user = this.#user
    while (user && user.lacking > 0) user.open({ tag: `mp${nonce}-${(++counter).toString(36)}-0` })
  }

  yields(): boolean {
    return false
  }

  opened(): void {}
  closing(): void {}
  give(): void {}

  leave(): void {
    this.#user = undefined
  }
}
