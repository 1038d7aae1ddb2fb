import { afterEach, describe, expect, test } from 'vitest'
import { createBroker } from '../../src/broker/broker.ts'
import type { Broker } from '../../src/broker/broker.ts'
import { joinBroker } from '../../src/broker/member.ts'
import { FakeClock } from '../../src/testing/clock.ts'
import { TestPool } from './support/pools.ts'

let names = 0
const all: TestPool[] = []

function setUp(limit: number, ...options: { min?: number; max?: number }[]) {
  const name = `resized-${++names}`
  const broker = createBroker({ name, limit })
  const clock = new FakeClock()
  const made = options.map((one) => {
    const pool = new TestPool(joinBroker({ name, clock }), () => clock.now(), one)
    pool.permits.enrol(pool)
    all.push(pool)
    return pool
  })
  return { broker, clock, pools: made as [TestPool, TestPool] }
}

function lease(pool: TestPool, count: number): void {
  for (let i = 0; i < count; i++) {
    pool.acquire()
    pool.openDone()
  }
}

/** Until all wakes have been heard. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => void setImmediate(resolve))
}

function used({ held, closing, granted, limbo }: ReturnType<Broker['stats']>): number {
  return held + closing + granted + limbo
}

afterEach(() => {
  for (const pool of all.splice(0)) pool.permits.leave()
})

describe('broker.resize()', () => {
  test('a higher limit serves at once who waits', async () => {
    const { broker, pools } = setUp(1, {}, {})
    const [a, b] = pools
    lease(a, 1)
    b.acquire()
    await quiet()
    expect(b.openings).toHaveLength(0)
    broker.resize(2)
    expect(broker.limit).toBe(2)
    await quiet()
    expect(b.openings).toHaveLength(1)
    expect(broker.stats()).toMatchObject({ limit: 2, held: 2, free: 0 })
  })

  test('a lower limit closes idle connections at once, and leased ones as they are released', async () => {
    const { broker, pools } = setUp(4, {}, {})
    const [a, b] = pools
    lease(a, 2)
    lease(b, 2)
    b.release()
    b.release()
    broker.resize(1)
    expect(broker.stats()).toMatchObject({ limit: 1, held: 4, free: 0 })
    await quiet()
    // Those of b are the third and the fourth permit; of a's two the second is beyond the limit.
    expect([a.closings.length, b.closings.length]).toEqual([0, 2])
    b.closeDone()
    b.closeDone()
    a.release()
    a.release()
    expect([a.closings.length, a.idles.length]).toEqual([1, 1])
    a.closeDone()
    await quiet()
    expect(broker.stats()).toMatchObject({ limit: 1, held: 1, closing: 0, free: 0 })
  })

  test('a connection beyond the limit is not lent again, even while its own member waits', async () => {
    const { broker, pools } = setUp(2, {})
    const [a] = pools
    lease(a, 2)
    a.acquire()
    broker.resize(1)
    await quiet()
    a.release()
    a.release()
    expect([a.leased.length, a.closings.length]).toEqual([1, 1])
    a.closeDone()
    await quiet()
    expect(broker.stats()).toMatchObject({ held: 1, free: 0 })
  })

  test('a connection that was opening when the limit fell serves one lease at the most', async () => {
    const { broker, pools } = setUp(2, {})
    const [a] = pools
    a.acquire()
    a.acquire()
    broker.resize(1)
    await quiet()
    a.openDone()
    a.openDone()
    a.release()
    a.release()
    expect([a.idles.length, a.closings.length]).toEqual([1, 1])
  })

  test('goes up and down again without losing a permit', async () => {
    const { broker, pools } = setUp(3, {}, {})
    const [a, b] = pools
    lease(a, 3)
    broker.resize(1)
    broker.resize(3)
    await quiet()
    for (let i = 0; i < 3; i++) a.release()
    expect(a.closings).toHaveLength(0)
    broker.resize(5)
    await quiet()
    lease(b, 2)
    expect(used(broker.stats())).toBe(5)
    broker.resize(2)
    await quiet()
    expect(a.closings.length + b.closings.length).toBe(1)
    for (let i = 0; i < 2; i++) b.release()
    for (const pool of [a, b]) while (pool.closings.length > 0) pool.closeDone()
    await quiet()
    expect(broker.stats()).toMatchObject({ limit: 2, held: 2, closing: 0, free: 0 })
  })

  test('refuses what cannot be, and says why', async () => {
    const { broker, pools } = setUp(4, { min: 2 }, { min: 1 })
    const [a] = pools
    await quiet()
    expect(() => broker.resize(2)).toThrow(/to 2: its members keep 3 connections open/u)
    expect(broker.limit).toBe(4)
    expect(() => broker.resize(0)).toThrow('limit must be a whole number from 1 to 1024: got 0.')
    expect(() => broker.resize(1.5)).toThrow('got 1.5.')
    expect(() => broker.resize(1_025)).toThrow('got 1025.')
    broker.resize(3)
    expect(() => a.permits.resized?.(3)).toThrow(/would add up to 4, 3 of them this pool's, and its limit is 3/u)
    broker.resize(1_024)
    expect(broker.stats()).toMatchObject({ limit: 1_024 })
    for (const pool of all.splice(0)) pool.permits.leave()
    await broker.close()
    expect(() => broker.resize(3)).toThrow(/was closed/u)
  })

  test('twice the limit that it was made with is possible, beyond 1,024 too', () => {
    const { broker } = setUp(1_500)
    broker.resize(3_000)
    expect(() => broker.resize(3_001)).toThrow('from 1 to 3000')
  })
})
