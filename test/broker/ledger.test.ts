import { describe, expect, test } from 'vitest'
import { bury } from '../../src/broker/bury.ts'
import { at, format, generationOf, header, memberOf, read, state, stateOf, wordOf } from '../../src/broker/layout.ts'
import type { Ledger } from '../../src/broker/layout.ts'
import {
  clear,
  close,
  epochOf,
  free,
  grant,
  isAlive,
  lifeOf,
  live,
  reap,
  release,
  renew,
  status,
  statusOf,
  take,
} from '../../src/broker/ledger.ts'

function ledgerOf(limit: number, rows: number): Ledger {
  const ledger = read(format({ limit, rows, thread: 0, nonce: [1, 2], moveCost: 200 }))!
  ledger.words[header.rowsUsed] = rows
  return ledger
}

function alive(ledger: Ledger, row: number): number {
  live(ledger, row, lifeOf(ledger, row), status.enrolling)
  live(ledger, row, lifeOf(ledger, row), status.alive)
  return lifeOf(ledger, row)
}

const wordAt = (ledger: Ledger, slot: number): number => ledger.words[wordOf(slot)]!
const shown = (word: number | undefined): unknown =>
  word !== undefined && [stateOf(word), memberOf(word), generationOf(word)]

describe('the moves of a permit', () => {
  test('take, close, grant, take, free: the generation grows with each life that ends', () => {
    const ledger = ledgerOf(1, 2)
    const held = take(ledger, 0, 0, 1)!
    expect(shown(held)).toEqual([state.held, 1, 0])
    const closing = close(ledger, 0, held)!
    expect(shown(closing)).toEqual([state.closing, 1, 0])
    const granted = grant(ledger, 0, closing, 0)!
    expect(shown(granted)).toEqual([state.granted, 0, 1])
    const picked = take(ledger, 0, granted, 0)!
    expect(shown(picked)).toEqual([state.held, 0, 1])
    const renewed = renew(ledger, 0, picked)!
    expect(shown(renewed)).toEqual([state.held, 0, 2])
    expect(shown(free(ledger, 0, renewed))).toEqual([state.free, 0, 3])
  })

  test('limbo keeps the generation, so that the tag of the session is known', () => {
    const ledger = ledgerOf(1, 2)
    const held = renew(ledger, 0, take(ledger, 0, 0, 1)!)!
    const limbo = clear(ledger, 0, held)!
    expect(shown(limbo)).toEqual([state.limbo, 0, 1])
    const reaping = reap(ledger, 0, limbo, 0)!
    expect(shown(reaping)).toEqual([state.reaping, 0, 1])
    expect(shown(release(ledger, 0, reaping))).toEqual([state.limbo, 0, 1])
    expect(shown(renew(ledger, 0, reap(ledger, 0, limbo, 0)!))).toEqual([state.held, 0, 2])
  })

  test('a grant to somebody who is gone never was a connection: it becomes free', () => {
    const ledger = ledgerOf(1, 2)
    const granted = grant(ledger, 0, take(ledger, 0, 0, 1)!, 0)!
    expect(shown(clear(ledger, 0, granted))).toEqual([state.free, 0, 1])
  })

  test('who comes second with the same word gets nothing', () => {
    const ledger = ledgerOf(1, 3)
    expect(take(ledger, 0, 0, 1)).toBeDefined()
    expect(take(ledger, 0, 0, 2)).toBeUndefined()
    const held = wordAt(ledger, 0)
    for (const move of [close, free, renew, clear]) {
      expect(move(ledger, 0, held ^ (1 << 13))).toBeUndefined()
    }
    expect(wordAt(ledger, 0)).toBe(held)
  })

  test('a generation wraps to 0', () => {
    const ledger = ledgerOf(1, 1)
    let word = take(ledger, 0, 0, 0)!
    for (let i = 0; i < 2 ** 19 - 1; i++) word = renew(ledger, 0, word)!
    expect(shown(word)).toEqual([state.held, 0, 2 ** 19 - 1])
    expect(shown(renew(ledger, 0, word))).toEqual([state.held, 0, 0])
  })
})

describe('bury()', () => {
  test('leaves nothing that names the row, and makes it vacant in the next epoch', () => {
    const ledger = ledgerOf(5, 3)
    const life = alive(ledger, 1)
    alive(ledger, 2)
    take(ledger, 0, 0, 1)
    close(ledger, 1, take(ledger, 1, 0, 1)!)
    grant(ledger, 2, take(ledger, 2, 0, 2)!, 1)
    reap(ledger, 3, clear(ledger, 3, take(ledger, 3, 0, 2)!)!, 1)
    take(ledger, 4, 0, 2)
    bury(ledger, 1, life)
    expect([0, 1, 2, 3, 4].map((slot) => stateOf(wordAt(ledger, slot)))).toEqual([
      state.limbo,
      state.limbo,
      state.free,
      state.limbo,
      state.held,
    ])
    expect(statusOf(lifeOf(ledger, 1))).toBe(status.vacant)
    expect(epochOf(lifeOf(ledger, 1))).toBe(epochOf(life) + 1)
    expect(ledger.words[at(ledger, 2, 'wake')]).toBe(1)
    expect(ledger.words[at(ledger, 0, 'wake')]).toBe(0)
  })

  test('does nothing to the next owner of the row', () => {
    const ledger = ledgerOf(1, 1)
    const first = alive(ledger, 0)
    bury(ledger, 0, first)
    const second = alive(ledger, 0)
    take(ledger, 0, 0, 0)
    bury(ledger, 0, first)
    expect(lifeOf(ledger, 0)).toBe(second)
    expect(isAlive(ledger, 0)).toBe(true)
    expect(stateOf(wordAt(ledger, 0))).toBe(state.held)
  })

  test('finishes what a leaver that died had begun', () => {
    const ledger = ledgerOf(1, 1)
    const life = alive(ledger, 0)
    take(ledger, 0, 0, 0)
    live(ledger, 0, life, status.gone)
    bury(ledger, 0, life)
    expect(stateOf(wordAt(ledger, 0))).toBe(state.limbo)
    expect(statusOf(lifeOf(ledger, 0))).toBe(status.vacant)
  })
})
