const firstMs = 100
const mostMs = 5_000

/** Why a slot is not reaped now: others are to do it first; it failed, with a connection of one's own or for want of one. */
type Reason = 'leaves' | 'lacks' | 'failed'

interface Chance {
  readonly now: number
  /** There is a connection of one's own to reap through. */
  readonly has: boolean
  /** Nobody has any. */
  readonly alone: boolean
}

/** When to reap what is not to be reaped at once, or could not be: later each time, slot by slot. */
export class Retries {
  readonly #slots = new Map<number, { word: number; delay: number; at: number; why: Reason }>()

  get size(): number {
    return this.#slots.size
  }

  /** Whether a slot's word may be tried now: its time has come, or what it was left for has changed. */
  allows(slot: number, word: number, { now, has, alone }: Chance): boolean {
    const known = this.#slots.get(slot)
    if (!known || known.word !== word || now >= known.at) return true
    return known.why === 'lacks' ? has : known.why === 'leaves' && alone
  }

  /** Gives others the time to do it first, once for each word. False if that time has been given. */
  giveWay(slot: number, word: number, now: number): boolean {
    const known = this.#slots.get(slot)
    if (known?.word === word) return false
    this.#slots.set(slot, { word, delay: firstMs / 2, at: now + firstMs, why: 'leaves' })
    return true
  }

  failed(slot: number, word: number, now: number, has: boolean): void {
    const known = this.#slots.get(slot)
    const delay = known?.word === word ? Math.min(mostMs, known.delay * 2) : firstMs
    this.#slots.set(slot, { word, delay, at: now + delay, why: has ? 'failed' : 'lacks' })
  }

  succeeded(slot: number): void {
    this.#slots.delete(slot)
  }

  /** When the next one is due; Infinity if there is none. */
  get nextAt(): number {
    let next = Infinity
    for (const { at } of this.#slots.values()) next = Math.min(next, at)
    return next
  }

  /** Forgets those that show another word by now: somebody else has dealt with them. */
  prune(wordOf: (slot: number) => number): void {
    for (const [slot, { word }] of this.#slots) if (wordOf(slot) !== word) this.#slots.delete(slot)
  }
}
