import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { MessageChannel, Worker } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { Piscina } from 'piscina'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createBroker } from 'millpond'
import type { Broker, PoolStats } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase, until } from '../support/database.ts'
import { ask } from './ask.ts'
import { Thread } from './thread.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Half as long as somebody blocks here. A grant that is not picked up lies for 50 ms; the rest is for a slow machine. */
const tooLongMs = 1_500

/**
 * Two members, one of them here, that always want more connections than there are, from before until after `meanwhile`.
 * Resolves with the longest time that one of them had to wait.
 */
async function longestWait(broker: Broker, meanwhile: () => Promise<unknown>): Promise<number> {
  const there = new Thread(database.url, { broker: broker.name })
  await using here = createPool(database.url, { broker: broker.name })
  const members = [
    () => here.sql`select pg_sleep(0.002)`,
    () => there.tell('work', { times: 1, concurrency: 1, ms: 2 }),
  ]
  await Promise.all(members.map((serve) => serve()))
  let running = true
  let longestMs = 0
  const load = members.flatMap((serve) =>
    Array.from({ length: 3 }, async () => {
      while (running) {
        const asked = performance.now()
        await serve()
        longestMs = Math.max(longestMs, performance.now() - asked)
      }
    }),
  )
  await meanwhile()
  running = false
  await Promise.all(load)
  return longestMs
}

describe('a thread that computes', () => {
  test('and holds idle connections does not keep others from those of a thread that does not', async () => {
    await using broker = createBroker({ name: 'blocked donor', limit: 4 })
    const blocked = new Thread(database.url, { broker: broker.name })
    const free = new Thread(database.url, { broker: broker.name })
    await blocked.tell('work', { times: 4, concurrency: 2, ms: 2 })
    await free.tell('work', { times: 4, concurrency: 2, ms: 2 })
    await expect.poll(() => broker.stats().free).toBe(0)
    const computing = blocked.tell('compute', 4_000)
    await using pool = createPool(database.url, { broker: broker.name, acquireTimeoutMs: 2_000 })
    const startedAt = performance.now()
    expect(await pool.sql`select 1 as one`).toEqual([{ one: 1 }])
    expect(performance.now() - startedAt).toBeLessThan(1_500)
    await computing
  })

  test('while its own acquires wait is passed over: the others go on', async () => {
    await using broker = createBroker({ name: 'blocked asker', limit: 1 })
    await using pool = createPool(database.url, { broker: broker.name })
    let done = 0
    let running = true
    const load = Promise.all(
      Array.from({ length: 4 }, async () => {
        while (running) {
          await pool.sql`select pg_sleep(0.002)`
          done++
        }
      }),
    )
    const asker = new Thread(database.url, { broker: broker.name })
    // It has just asked for a connection when it begins to compute.
    const asking = asker.tell('idle')
    await until(() => broker.stats().members.some(({ wants, threadId }) => wants > 0 && threadId !== 0), 'a want')
    const computing = asker.tell('compute', 1_500)
    const [before, { moves }] = [done, broker.stats()]
    await computing
    const given = broker.stats().moves - moves
    running = false
    await load
    await asking
    // Each permit that it left lying would have been out of service until somebody took it back.
    expect(given).toBeLessThanOrEqual(2)
    expect(done - before).toBeGreaterThan(50)
  })

  test('for seconds, having leases and wanting more, keeps nobody else from the rest', async () => {
    await using broker = createBroker({ name: 'blocked', limit: 3 })
    const blocked = new Thread(database.url, { broker: broker.name })
    await blocked.tell('lease', 1)
    const waitedMs = await longestWait(broker, async () => {
      void blocked.tell('want', 1)
      await blocked.tell('compute', 3_000)
    })
    expect(waitedMs).toBeLessThan(tooLongMs)
    // What it asked for it gets once it can use it.
    await until(async () => (await blocked.stats()).leased === 2, 'what was wanted')
    await blocked.tell('release')
  })
})

describe('a Piscina worker that waits with atomics: "sync"', () => {
  test('and has leases and wants more keeps nobody else from the rest, and goes on with its next task', async () => {
    await using broker = createBroker({ name: 'frozen', limit: 3 })
    const piscina = new Piscina({
      filename: fileURLToPath(new URL('./fixtures/frozen.mjs', import.meta.url)),
      maxThreads: 1,
      minThreads: 1,
      atomics: 'sync',
    })
    try {
      const take = (has: number, wants: number) =>
        piscina.run({ url: database.url, broker: broker.name, has, wants }, { name: 'take' })
      await take(1, 0)
      const waitedMs = await longestWait(broker, async () => {
        await take(0, 1)
        await sleep(3_000)
      })
      expect(waitedMs).toBeLessThan(tooLongMs)
      expect(await piscina.run(undefined, { name: 'finish' })).toBe(2)
    } finally {
      await piscina.destroy()
    }
  })
})

describe('a broker whose thread computes', () => {
  test('delays who joins and who has died; those that are there go on moving permits', async () => {
    const channels = Array.from({ length: 4 }, () => new MessageChannel())
    const apart = new Worker(new URL('./fixtures/apart.mjs', import.meta.url), {
      workerData: { url: database.url, limit: 2, ports: channels.map(({ port2 }) => port2) },
      transferList: channels.map(({ port2 }) => port2),
    })
    try {
      const [first, second, late, mortal] = channels.map(({ port1 }) => port1) as [
        MessagePort,
        MessagePort,
        MessagePort,
        MessagePort,
      ]
      const stats = async () => ((await ask(first, 'stats')) as PoolStats).broker as NonNullable<PoolStats['broker']>
      await ask(first, 'idle')
      await ask(second, 'idle')
      await ask(mortal, 'lease', 1)
      // It is up, but has not used its pool.
      await ask(late, 'stats')
      expect((await stats()).members).toHaveLength(3)

      apart.postMessage(3_000)
      await once(apart, 'message')
      let free = false
      const freed = once(apart, 'message').then(() => (free = true))
      mortal.postMessage({ order: 'exit' })
      const joined = ask(late, 'idle').then(() => performance.now())
      const { moves } = await stats()
      let turns = 0
      while (!free) {
        // Each in turn needs the one permit that is left.
        await ask(turns++ % 2 === 0 ? first : second, 'work', { times: 4, concurrency: 2, ms: 2 })
      }
      expect(turns).toBeGreaterThan(8)
      const during = await stats()
      expect(during.moves - moves).toBeGreaterThan(8)
      await freed
      const freedAt = performance.now()

      expect((await joined) - freedAt).toBeLessThan(5_000)
      await until(async () => {
        const { limbo, members } = await stats()
        return limbo === 0 && members.length === 3
      }, 'the dead one to be reaped, and the late one to be there')
    } finally {
      await apart.terminate()
    }
  })
})
