import { afterEach, describe, expect, test } from 'vitest'
import { createBroker } from '../../src/broker/broker.ts'
import { Gate, refusalStats } from '../../src/broker/gate.ts'
import { format, read } from '../../src/broker/layout.ts'
import type { Ledger } from '../../src/broker/layout.ts'
import { joinBroker } from '../../src/broker/member.ts'
import { FakeClock } from '../../src/testing/clock.ts'
import { TestPool } from './support/pools.ts'

function ledger(): Ledger {
  return read(format({ limit: 2, rows: 2, thread: 0, nonce: [1, 2], moveCost: 0 }))!
}

describe('Gate', () => {
  test('is closed for all once one was refused, for 100 ms and then for longer each time, up to 5 s', () => {
    const shared = ledger()
    const [a, b] = [new Gate(shared, () => 0), new Gate(shared, () => 0)]
    let now = 1_000
    expect([a.allows(3, now), b.allows(3, now)]).toEqual([true, true])
    const delays: number[] = []
    for (let i = 0; i < 8; i++) {
      const at = a.refused(now)
      expect([a.allows(0, at - 1), b.allows(0, at - 1)]).toEqual([false, false])
      delays.push(at - now)
      now = at
    }
    expect(delays).toEqual([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000])
  })

  test('lets each member try one connection when it opens, and all again once the server has let one in', () => {
    const shared = ledger()
    const [a, b] = [new Gate(shared, () => 0), new Gate(shared, () => 0.5)]
    const at = a.refused(0)
    // Not all at the same time.
    expect([a.allows(0, at), b.allows(0, at)]).toEqual([true, false])
    expect(b.allows(0, at + 25)).toBe(true)
    expect(a.allows(1, at)).toBe(false)
    b.passed()
    expect([a.allows(3, at), b.allows(3, at)]).toEqual([true, true])
  })

  test('counts those that were on their way when it closed, but does not close for longer', () => {
    const shared = ledger()
    const gate = new Gate(shared, () => 0)
    const at = gate.refused(0)
    expect([gate.refused(1), gate.refused(2)]).toEqual([at, at])
    expect(refusalStats(shared, 50)).toEqual({ refusals: 3, refusedForMs: 50, limitFits: true })
  })

  test('says after 10 s of nothing but refusals that the limit does not fit, and takes it back', () => {
    const shared = ledger()
    const gate = new Gate(shared, () => 0)
    for (let now = 0; now < 10_000;) now = gate.refused(now)
    expect(refusalStats(shared, 9_999)).toMatchObject({ limitFits: true, refusedForMs: 9_999 })
    expect(refusalStats(shared, 10_000)).toMatchObject({ limitFits: false })
    gate.passed()
    expect(refusalStats(shared, 20_000)).toMatchObject({ limitFits: true, refusedForMs: 0 })
  })
})

describe('Members whose server has no room', () => {
  const pools: TestPool[] = []
  afterEach(() => {
    for (const pool of pools.splice(0)) pool.permits.leave()
  })

  test('wait together, and then try again without being asked', async () => {
    const name = 'full'
    const broker = createBroker({ name, limit: 4 })
    const clock = new FakeClock()
    const [a, b] = [1, 2].map(() => {
      const pool = new TestPool(joinBroker({ name, clock }), () => clock.now())
      pool.permits.enrol(pool)
      pools.push(pool)
      return pool
    }) as [TestPool, TestPool]
    a.acquire()
    a.permits.full?.()
    a.openFailed()
    b.acquire()
    b.acquire()
    expect([a.openings.length, b.openings.length]).toEqual([0, 0])
    expect(a.permits.stats?.()).toMatchObject({ refusals: 1, free: 4, limitFits: true })
    await clock.advance(250)
    // One each finds out.
    expect([a.openings.length, b.openings.length]).toEqual([1, 1])
    b.openDone()
    b.permits.settle()
    expect(b.openings).toHaveLength(1)
    expect(broker.stats()).toMatchObject({ refusals: 1, refusedForMs: 0 })
  })
})
