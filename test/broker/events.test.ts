import { threadId } from 'node:worker_threads'
import { afterEach, describe, expect, test } from 'vitest'
import { createBroker } from '../../src/broker/broker.ts'
import { joinBroker } from '../../src/broker/member.ts'
import { FakeClock } from '../../src/testing/clock.ts'
import { hear } from '../support/events.ts'
import { TestPool } from './support/pools.ts'

let names = 0
const pools: TestPool[] = []

function setUp(limit: number, count: number) {
  const name = `told-${++names}`
  const broker = createBroker({ name, limit })
  const clock = new FakeClock()
  const made = Array.from({ length: count }, () => {
    const pool = new TestPool(joinBroker({ name, clock }), () => clock.now())
    pool.permits.enrol(pool)
    pools.push(pool)
    return pool
  })
  return { name, broker, clock, pools: made as [TestPool, TestPool] }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => void setImmediate(resolve))
}

afterEach(() => {
  for (const pool of pools.splice(0)) pool.permits.leave()
})

describe('A broker tells those who listen', () => {
  test('who joins and leaves', () => {
    const events = hear('millpond:join', 'millpond:leave')
    const { name, pools: members } = setUp(2, 2)
    for (const pool of members) pool.permits.leave()
    pools.length = 0
    expect(events).toEqual([
      { type: 'millpond:join', broker: name, members: 1 },
      { type: 'millpond:join', broker: name, members: 2 },
      { type: 'millpond:leave', broker: name, members: 1 },
      { type: 'millpond:leave', broker: name, members: 0 },
    ])
  })

  test('what moves', async () => {
    const events = hear('millpond:move')
    const { name, broker, clock, pools: members } = setUp(1, 2)
    const [a, b] = members
    a.acquire()
    a.openDone()
    a.release()
    b.acquire()
    await clock.advance(broker.stats().moveMs * 2)
    await until(() => a.closings.length === 1)
    a.closeDone()
    await until(() => b.openings.length === 1)
    expect(events).toEqual([{ type: 'millpond:move', broker: name, from: threadId, to: threadId }])
  })

  test('what was reaped, or could not be', async () => {
    const events = hear('millpond:reap')
    const { name, clock, pools: members } = setUp(2, 2)
    const [a, b] = members
    b.acquire()
    b.openDone()
    b.release()
    a.acquire()
    a.openDone()
    const { tag } = a.leased[0]!
    a.destroy()
    b.reapAnswer = () => Promise.resolve(false)
    a.permits.leave()
    await until(() => events.length === 1)
    b.reapAnswer = () => Promise.resolve(true)
    await clock.advance(100)
    await until(() => events.length === 2)
    expect(events).toEqual([
      { type: 'millpond:reap', broker: name, connection: tag, ended: false, durationMs: 0 },
      { type: 'millpond:reap', broker: name, connection: tag, ended: true, durationMs: 0 },
    ])
  })

  test('that the server has no room, and that the limit was changed', () => {
    const events = hear('millpond:full', 'millpond:limit')
    const { name, broker, pools: members } = setUp(2, 1)
    members[0].permits.full?.()
    broker.resize(5)
    expect(() => broker.resize(0)).toThrow('limit')
    expect(events).toEqual([
      { type: 'millpond:full', broker: name, retryMs: expect.closeTo(125, -2) },
      { type: 'millpond:limit', broker: name, limit: 5, before: 2 },
    ])
  })
})
