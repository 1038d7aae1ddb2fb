import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createBroker } from 'millpond'
import type { Broker } from 'millpond'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Thread } from './thread.ts'

// Who gets how much, with threads, sockets and a server. `SHARES_SECONDS=20` measures as long as is needed to quote the
// figures; bench/fairness has the same rules in virtual time, for every kind of load.

const seconds = Number(process.env['SHARES_SECONDS'] ?? 3)
/** A short look on a noisy machine says that they come to be even, not how even they are. */
const isShort = seconds < 20
const timeout = 30_000 + 4_000 * seconds

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Threads under load, as long as the test runs. */
function loaded(broker: Broker, count: number, load: { concurrency: number; ms: number }): Thread[] {
  return Array.from({ length: count }, () => {
    const thread = new Thread(database.url, { broker: broker.name, max: 32, acquireTimeoutMs: 60_000 })
    void thread.tell('work', { times: 1e9, ...load }).catch(() => undefined)
    return thread
  })
}

/** How many permits each of them held on average, and how many moved each second, over the whole time. */
async function measure(broker: Broker): Promise<{ held: Map<number, number>; moves: number }> {
  const held = new Map<number, number>()
  const before = broker.stats().moves
  const until = performance.now() + seconds * 1_000
  let samples = 0
  while (performance.now() < until) {
    for (const member of broker.stats().members)
      held.set(member.threadId, (held.get(member.threadId) ?? 0) + member.held)
    samples++
    await sleep(5)
  }
  for (const [thread, sum] of held) held.set(thread, sum / samples)
  return { held, moves: (broker.stats().moves - before) / seconds }
}

function apart(held: readonly number[]): number {
  return Math.max(...held) - Math.min(...held)
}

describe('threads under one limit', () => {
  test.each([8, 10])('of the same load share %d permits evenly, and hardly one moves', { timeout }, async (limit) => {
    await using broker = createBroker({ name: `even ${limit}`, limit })
    const threads = loaded(broker, 4, { concurrency: 16, ms: 2 })
    await expect.poll(() => broker.stats().held, { timeout: 10_000 }).toBe(limit)
    const now = (): number[] => broker.stats().members.map(({ held }) => held)
    await expect.poll(() => now().length === 4 && apart(now()), { timeout: 15_000, interval: 5 }).toBeLessThanOrEqual(1)
    await sleep(1_000)
    const { held, moves } = await measure(broker)
    const shares = [...held.values()]
    console.log(`limit ${limit}: ${moves.toFixed(2)} moves/s, shares ${shares.map((one) => one.toFixed(2)).join(' ')}`)
    expect(shares).toHaveLength(4)
    if (!isShort) expect(apart(shares)).toBeLessThanOrEqual(1)
    expect(moves).toBeLessThan(isShort ? 20 : 1)
    for (const thread of threads) await thread.terminate()
  })

  test('get what the others leave idle, all of it', { timeout }, async () => {
    const limit = 8
    await using broker = createBroker({ name: 'one hot', limit })
    const idle = loaded(broker, 3, { concurrency: 0, ms: 0 })
    for (const thread of idle) await thread.tell('work', { times: 8, concurrency: 2, ms: 2 })
    const [hot] = loaded(broker, 1, { concurrency: 32, ms: 2 })
    const startedAt = performance.now()
    const has = (): number | undefined =>
      broker.stats().members.find(({ threadId }) => threadId === hot!.worker.threadId)?.held
    await expect.poll(has, { timeout: 10_000, interval: 2 }).toBe(limit)
    const ms = performance.now() - startedAt
    const { moveMs } = broker.stats()
    console.log(`all ${limit} after ${ms.toFixed(0)} ms; a move takes ${moveMs.toFixed(1)} ms`)
    // Its thread has to start first.
    expect(ms).toBeLessThan(3_000)
    for (const thread of [...idle, hot!]) await thread.terminate()
  })

  test('that are more than there are permits take turns: nobody waits for long', { timeout }, async () => {
    await using broker = createBroker({ name: 'three for twelve', limit: 3 })
    const threads = loaded(broker, 12, { concurrency: 4, ms: 2 })
    await expect.poll(() => broker.stats().members.length, { timeout: 10_000 }).toBe(12)
    // Each of them has had one by then.
    await sleep(2_000)
    let longest = 0
    const until = performance.now() + seconds * 1_000
    while (performance.now() < until) {
      for (const { waitingMs } of broker.stats().members) longest = Math.max(longest, waitingMs)
      await sleep(5)
    }
    console.log(`the longest wait was ${longest.toFixed(0)} ms`)
    expect(longest).toBeLessThan(isShort ? 8_000 : 2_000)
    for (const thread of threads) await thread.terminate()
  })
})
