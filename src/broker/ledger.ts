import { at, header, generationOf, memberOf, pack, state, stateOf, wordOf } from './layout.ts'
import type { Ledger } from './layout.ts'

// The moves of a permit, each one compare-and-swap on its slot's word:
//
//   FREE         → HELD(me)                          take
//   GRANTED(to)  → HELD(to)                          take: picked up
//                → HELD(me)                          take: its taker is not there
//                → FREE                              clear: its taker has died or left
//   HELD(me)     → CLOSING(me)                       close
//   HELD(me), CLOSING(me)
//                → GRANTED(to), FREE, HELD(me)       grant, free, renew: a new life begins
//                → LIMBO                             clear: its owner has died or left
//   LIMBO        → REAPING(me)                       reap
//   REAPING(me)  → HELD(me)                          renew: the server has let go
//                → LIMBO                             release: it could not be found out; or clear
//
// The generation grows with every move that ends a life: `grant`, `free`, `renew`. So no word ever comes back, and a
// swap that succeeds acts on what was read.
//
// The life of a row is its epoch and a status: VACANT → ENROLLING → ALIVE → GONE → VACANT (next epoch). Its owner
// claims it and says when it goes; the broker's thread makes it ALIVE, and GONE when the owner cannot. Only a row that
// is ALIVE owns, wants or is granted anything.

export const status = { vacant: 0, enrolling: 1, alive: 2, gone: 3 } as const

/** The word that a swap has written; undefined if somebody else was faster. */
export type Swapped = number | undefined

/** FREE or GRANTED → HELD(me). */
export function take(ledger: Ledger, slot: number, word: number, me: number): Swapped {
  return swap(ledger, slot, word, pack(state.held, me, generationOf(word)))
}

/** HELD → CLOSING. */
export function close(ledger: Ledger, slot: number, word: number): Swapped {
  return swap(ledger, slot, word, pack(state.closing, memberOf(word), generationOf(word)))
}

/** A permit in hand → GRANTED(to). */
export function grant(ledger: Ledger, slot: number, word: number, to: number): Swapped {
  return swap(ledger, slot, word, pack(state.granted, to, generationOf(word) + 1))
}

/** A permit in hand → FREE. */
export function free(ledger: Ledger, slot: number, word: number): Swapped {
  return swap(ledger, slot, word, pack(state.free, 0, generationOf(word) + 1))
}

/** A permit in hand → HELD by the same member, for another connection. */
export function renew(ledger: Ledger, slot: number, word: number): Swapped {
  return swap(ledger, slot, word, pack(state.held, memberOf(word), generationOf(word) + 1))
}

/** LIMBO → REAPING(me). The generation stays: it is in the tag of the session to be ended. */
export function reap(ledger: Ledger, slot: number, word: number, me: number): Swapped {
  return swap(ledger, slot, word, pack(state.reaping, me, generationOf(word)))
}

/** REAPING → LIMBO. */
export function release(ledger: Ledger, slot: number, word: number): Swapped {
  return swap(ledger, slot, word, pack(state.limbo, 0, generationOf(word)))
}

/** What is left of a member that is gone → FREE if it never was a connection, LIMBO if it may be one. */
export function clear(ledger: Ledger, slot: number, word: number): Swapped {
  const to = stateOf(word) === state.granted ? state.free : state.limbo
  return swap(ledger, slot, word, pack(to, 0, generationOf(word)))
}

function swap(ledger: Ledger, slot: number, word: number, next: number): Swapped {
  return Atomics.compareExchange(ledger.words, wordOf(slot), word, next) === word ? next : undefined
}

export function statusOf(life: number): number {
  return life & 3
}

export function epochOf(life: number): number {
  return life >>> 2
}

/** A row's life goes on: to another status, and to the next epoch when it becomes vacant. */
export function nextLife(life: number, to: number): number {
  return ((epochOf(life) + (to === status.vacant ? 1 : 0)) << 2) | to
}

/** Moves a row's life on; false if somebody else did. */
export function live(ledger: Ledger, row: number, life: number, to: number): boolean {
  return Atomics.compareExchange(ledger.words, at(ledger, row, 'life'), life, nextLife(life, to)) === life
}

export function lifeOf(ledger: Ledger, row: number): number {
  return Atomics.load(ledger.words, at(ledger, row, 'life'))
}

export function isAlive(ledger: Ledger, row: number): boolean {
  return statusOf(lifeOf(ledger, row)) === status.alive
}

/** A hint to settle again. It may be lost with a dying thread; nothing may rest on one wake alone. */
export function wake(ledger: Ledger, row: number): void {
  const word = at(ledger, row, 'wake')
  Atomics.add(ledger.words, word, 1)
  Atomics.notify(ledger.words, word)
}

/** Wakes all members, so that they look at everything again. */
export function wakeAll(ledger: Ledger): void {
  const rows = Atomics.load(ledger.words, header.rowsUsed)
  for (let row = 0; row < rows; row++) if (isAlive(ledger, row)) wake(ledger, row)
}
