import { describe, expect, test } from 'vitest'
import { BareTurn } from '../../src/broker/bare-turn.ts'
import { bury } from '../../src/broker/bury.ts'
import { format, read } from '../../src/broker/layout.ts'
import type { Ledger } from '../../src/broker/layout.ts'
import { lifeOf, live, status } from '../../src/broker/ledger.ts'

const ms = 15_000

function setUp(rows = 3): { ledger: Ledger; turns: BareTurn[] } {
  const ledger = read(format({ limit: 2, rows, thread: 0, nonce: [1, 2], moveCost: 1 })) as Ledger
  const turns = Array.from({ length: rows }, (_, row) => {
    join(ledger, row)
    return new BareTurn(ledger, row)
  })
  return { ledger, turns }
}

function join(ledger: Ledger, row: number): void {
  live(ledger, row, lifeOf(ledger, row), status.enrolling)
  live(ledger, row, lifeOf(ledger, row), status.alive)
}

const dies = (ledger: Ledger, row: number): void => bury(ledger, row, lifeOf(ledger, row))

describe('BareTurn', () => {
  test('BareTurn.begin() lets one at a time have it, until that one has ended', () => {
    const [a, b] = setUp().turns as [BareTurn, BareTurn]
    expect(a.begin(0, ms)).toBe(true)
    expect(b.begin(ms - 1, ms)).toBe(false)
    b.end()
    expect(b.begin(ms - 1, ms)).toBe(false)
    a.end()
    expect(b.begin(ms - 1, ms)).toBe(true)
  })

  test('BareTurn.begin() takes one that has lasted for too long; its owner ends it no more', () => {
    const [a, b, c] = setUp().turns as [BareTurn, BareTurn, BareTurn]
    expect(a.begin(0, ms)).toBe(true)
    expect(b.begin(ms, ms)).toBe(true)
    a.end()
    expect(c.begin(ms, ms)).toBe(false)
  })

  test.each([
    ['has died', () => undefined],
    ['has died, and another one is in its place', join],
  ])('BareTurn.begin() gives the connection of one who %s a second, and not the rest of its time', (_, then) => {
    const { ledger, turns } = setUp()
    const [a, b, c] = turns as [BareTurn, BareTurn, BareTurn]
    expect(a.begin(0, ms)).toBe(true)
    expect(b.begin(100, ms)).toBe(false)
    dies(ledger, 0)
    then(ledger, 0)
    // From when it is first seen.
    expect(b.begin(200, ms)).toBe(false)
    expect(b.begin(1_199, ms)).toBe(false)
    expect(b.begin(1_200, ms)).toBe(true)
    expect(c.begin(1_200, ms)).toBe(false)
  })

  test('BareTurn.begin() counts the second anew for each who dies', () => {
    const { ledger, turns } = setUp()
    const [a, b, c] = turns as [BareTurn, BareTurn, BareTurn]
    a.begin(0, ms)
    dies(ledger, 0)
    expect(c.begin(0, ms)).toBe(false)
    expect(b.begin(0, ms)).toBe(false)
    expect(b.begin(1_000, ms)).toBe(true)
    dies(ledger, 1)
    expect(c.begin(1_500, ms)).toBe(false)
    expect(c.begin(2_499, ms)).toBe(false)
    expect(c.begin(2_500, ms)).toBe(true)
  })

  test('BareTurn.begin() tells a member from one that had its row before', () => {
    const { ledger, turns } = setUp()
    const [a, b] = turns as [BareTurn, BareTurn]
    a.begin(0, ms)
    dies(ledger, 0)
    join(ledger, 0)
    const next = new BareTurn(ledger, 0)
    next.end()
    expect(b.begin(0, ms)).toBe(false)
    expect(next.begin(0, ms)).toBe(false)
    expect(next.begin(1_000, ms)).toBe(true)
    expect(b.begin(1_001, ms)).toBe(false)
  })

  test('BareTurn.begin() works across the turn of the clock', () => {
    const [a, b] = setUp().turns as [BareTurn, BareTurn]
    const end = 2 ** 32 / 10
    expect(a.begin(end - 10, ms)).toBe(true)
    expect(b.begin(end + ms - 11, ms)).toBe(false)
    expect(b.begin(end + ms - 9, ms)).toBe(true)
  })
})
