import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createBroker } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Thread } from './thread.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

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
    await expect
      .poll(() => broker.stats().members.some(({ wants, threadId }) => wants > 0 && threadId !== 0))
      .toBe(true)
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
})
