import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createBroker } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Counting } from './counting.ts'
import { Thread } from './thread.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
  await using pool = createPool(database.url)
  await pool.sql`create table canary (id int primary key, touched int)`
  await pool.sql`insert into canary values (1, 0)`
})

afterAll(() => database.drop())

const limit = 3

describe('a thread that is terminated', () => {
  test.each([
    ['while its connections idle', 'idle', undefined],
    ['while it leases', 'lease', 2],
    ['inside a transaction', 'transaction', undefined],
    ['while a long query runs', 'busy', 60],
  ])('%s leaves its permits to the others, and nobody hangs', async (name, order, argument) => {
    await using broker = createBroker({ name, limit })
    await using pool = createPool(database.url, { broker: name, max: limit, acquireTimeoutMs: 10_000 })
    // A living connection of ours, which is enough to reap through.
    await pool.sql`select 1`
    const thread = new Thread(database.url, { broker: name, max: 2 })
    await thread.tell(order, argument)
    expect(broker.stats().held).toBeGreaterThanOrEqual(2)

    await using counting = new Counting(database.admin, database.name)
    await thread.terminate()
    const leases = await Promise.all(Array.from({ length: limit }, () => pool.acquire()))
    expect(broker.stats()).toMatchObject({ held: limit, limbo: 0, free: 0 })
    // The row that was locked in the dead thread's transaction is free, and unchanged.
    const [row] = await (leases[0] as (typeof leases)[0]).sql`select touched from canary where id = 1 for update nowait`
    expect(row).toEqual({ touched: 0 })
    for (const lease of leases) await lease.release()
    expect((await counting.stop()).peak).toBeLessThanOrEqual(limit)
  })

  test('that held every permit leaves them to a member that has no living connection', async () => {
    await using broker = createBroker({ name: 'all gone', limit: 2 })
    await using pool = createPool(database.url, { broker: broker.name, acquireTimeoutMs: 10_000 })
    const thread = new Thread(database.url, { broker: broker.name })
    await thread.tell('lease', 2)
    const waiting = pool.acquire()
    await expect.poll(() => pool.stats().waiting).toBe(1)
    await thread.terminate()
    const lease = await waiting
    expect(await lease.sql`select 1 as one`).toEqual([{ one: 1 }])
    await lease.release()
  })

  test('while it reaps beside the limit is not waited for as long as that may take', async () => {
    await using broker = createBroker({ name: 'reaper gone', limit: 1 })
    const holder = new Thread(database.url, { broker: broker.name })
    await holder.tell('lease', 1)
    const reaper = new Thread(database.url, { broker: broker.name })
    reaper.tell('lease', 1).catch(() => undefined)
    await expect.poll(() => broker.stats().members.length).toBe(2)
    await holder.terminate()
    await expect.poll(() => broker.stats().limbo).toBe(1)
    // It has no connection to do it through, so it has given the session a second to end.
    await using pool = createPool(database.url, { broker: broker.name, acquireTimeoutMs: 8_000 })
    const waiting = pool.acquire()
    await expect.poll(() => pool.stats().waiting).toBe(1)
    await sleep(200)
    expect(broker.stats()).toMatchObject({ held: 0, limbo: 1 })
    await reaper.terminate()
    await (await waiting).release()
    expect(broker.stats().limbo).toBe(0)
  })

  test('has its sessions ended before the broker is closed', async () => {
    const broker = createBroker({ name: 'closing', limit: 3 })
    await using pool = createPool(database.url, { broker: broker.name })
    await pool.sql`select 1`
    const thread = new Thread(database.url, { broker: broker.name })
    await thread.tell('busy', 60)
    await thread.terminate()
    await expect.poll(() => broker.stats().limbo + broker.stats().free).toBe(2)
    await broker.close()
    expect(await database.sessions()).toEqual([])
  })

  test('leaves its permits to whoever comes next, when no member was left', async () => {
    await using broker = createBroker({ name: 'nobody left', limit: 2 })
    const thread = new Thread(database.url, { broker: broker.name })
    await thread.tell('lease', 2)
    await thread.terminate()
    await using pool = createPool(database.url, { broker: broker.name, acquireTimeoutMs: 10_000 })
    const leases = await Promise.all([pool.acquire(), pool.acquire()])
    for (const lease of leases) await lease.release()
    expect(broker.stats().limbo).toBe(0)
  })
})

describe('a thread that ends in good order', () => {
  test('gives its permits back with its pool', async () => {
    await using broker = createBroker({ name: 'good order', limit: 2 })
    const thread = new Thread(database.url, { broker: broker.name })
    await thread.tell('work', { times: 4, concurrency: 2, ms: 1 })
    expect(broker.stats().held).toBe(2)
    await thread.tell('close')
    await expect.poll(() => broker.stats()).toMatchObject({ held: 0, closing: 0, limbo: 0, free: 2, members: [] })
  })
})
