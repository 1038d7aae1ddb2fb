import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { format, header, read } from '../../src/broker/layout.ts'
import { registers } from '../../src/broker/registers.ts'
import type { Host } from '../../src/broker/registers.ts'
import { isLull, isOutdated, runRelease } from '../../src/broker/release.ts'
import { phases } from '../../src/broker/settle.ts'

const slots = 4

function world(): { ledger: NonNullable<ReturnType<typeof read>>; r: ReturnType<typeof registers> } {
  const ledger = read(format({ limit: slots, room: slots, rows: 2, thread: 0, nonce: [1, 2], moveCost: 0 }))!
  return { ledger, r: registers(0, ledger.rows) }
}

interface Stands {
  waiting: number
  lacking: number
  idle: number
  releasing: number
  exceeds: boolean
}

/** All that a release asks of its pool. */
const hostOf = (stands: Stands): Host => ({ ...stands, exceeds: () => stands.exceeds }) as unknown as Host

describe('a lull', () => {
  test('isLull() is false unless a release would be owed to nobody, write nothing, and leave nothing to settle', () => {
    let lulls = 0
    const flag = fc.boolean()
    const few = fc.nat(2)
    const arbitrary = fc.record({
      othersWant: flag,
      unsettled: flag,
      want: few,
      shownIdle: few,
      hand: few,
      limit: fc.integer({ min: 1, max: slots }),
      slotsUsed: fc.integer({ min: 1, max: slots }),
      asks: few,
      stands: fc.record({ waiting: few, lacking: few, idle: few, releasing: fc.nat(slots - 1), exceeds: flag }),
    })
    const property = fc.property(arbitrary, ({ stands, ...how }) => {
      const { ledger, r } = world()
      // A connection of mine has a slot that has been used.
      fc.pre(stands.releasing < how.slotsUsed)
      Object.assign(r, { othersWant: how.othersWant, unsettled: how.unsettled, seenAsks: how.asks })
      Object.assign(r, { limit: how.limit, slotsUsed: how.slotsUsed })
      r.shown.want = how.want
      r.shown.idle = how.shownIdle
      for (let i = 0; i < how.hand; i++) r.hand.push({ slot: i, word: 0, used: true, forOthers: false })
      ledger.words[header.asks] = how.asks
      const host = hostOf(stands)
      if (!isLull(r, host)) return
      lulls++
      const before = [...ledger.words]
      runRelease(r, ledger, host, phases)
      expect(r.yields).toBe(false)
      expect([...ledger.words]).toEqual(before)
      // It is idle by then, or was handed to a waiter.
      expect(isOutdated(r, hostOf({ ...stands, idle: stands.waiting > 0 ? stands.idle : stands.idle + 1 }))).toBe(false)
    })
    fc.assert(property, { numRuns: 20_000 })
    // Enough of them to mean something; how many there are is chance.
    expect(lulls).toBeGreaterThan(10)
  })
})
