import { elapsed, header, tenths } from './layout.ts'
import type { Ledger } from './layout.ts'

const firstMs = 100
const longestMs = 5_000
/** After so long without one connection that was let in, it is not others' use of the server that passes. */
const lastingMs = 10_000

/**
 * What the server thinks of the limit, shared by all members. Once it has refused a connection because it has no room,
 * nobody takes a free permit before the gate opens: 100 ms later, then twice as long each time up to 5 s, and each member
 * a little later than that, so that they do not all come at once. A connection that is let in opens it for all.
 *
 * While it is closed free permits are no supply: what there is is shared as if it were the limit. A permit that somebody
 * has closed a connection for may be used at once.
 *
 * State, in the header; hints, which may be written over by one another
 *   gateDelay   0: open; else how long the gate has been closed this time
 *   gate        until when
 *   refusals    so many connections were refused, ever
 *   refusedAt   the first of those since a connection was let in
 */
export class Gate {
  readonly #words: Int32Array
  /** How much later than others this member comes, as a part of the delay. */
  readonly #lateness: number

  constructor(ledger: Ledger, random: () => number = Math.random) {
    this.#words = ledger.words
    this.#lateness = random() / 2
  }

  /** The server has no room; `now` in ms. Returns when this member may try again. */
  refused(now: number): number {
    const words = this.#words
    Atomics.add(words, header.refusals, 1)
    const delay = Atomics.load(words, header.gateDelay) / 10
    if (delay === 0) Atomics.store(words, header.refusedAt, tenths(now))
    // Those that were on their way when it closed say nothing new.
    if (delay > 0 && this.#left(now) > 0) return this.opensAt(now)
    const next = delay === 0 ? firstMs : Math.min(longestMs, delay * 2)
    Atomics.store(words, header.gate, tenths(now + next))
    Atomics.store(words, header.gateDelay, next * 10)
    return this.opensAt(now)
  }

  /** The server has let one in. */
  passed(): void {
    if (Atomics.load(this.#words, header.gateDelay) !== 0) Atomics.store(this.#words, header.gateDelay, 0)
  }

  get isOpen(): boolean {
    return Atomics.load(this.#words, header.gateDelay) === 0
  }

  /** Whether a free permit may be taken now, beside so many that are on their way: one finds out if there is room. */
  allows(underWay: number, now: number): boolean {
    return this.isOpen || (underWay === 0 && this.opensAt(now) <= now)
  }

  /** When this member may try again. */
  opensAt(now: number): number {
    const delay = Atomics.load(this.#words, header.gateDelay) / 10
    return delay === 0 ? now : now + this.#left(now) + delay * this.#lateness
  }

  /** How long until the gate opens for the first; below 0 when it is past. */
  #left(now: number): number {
    return ((Atomics.load(this.#words, header.gate) - tenths(now)) | 0) / 10
  }
}

/** What there is to say of refusals. */
export function refusalStats(
  ledger: Ledger,
  now: number,
): { refusals: number; refusedForMs: number; limitFits: boolean } {
  const { words } = ledger
  const refusing = Atomics.load(words, header.gateDelay) !== 0
  const refusedForMs = refusing ? elapsed(Atomics.load(words, header.refusedAt), tenths(now)) : 0
  return { refusals: Atomics.load(words, header.refusals), refusedForMs, limitFits: refusedForMs < lastingMs }
}
