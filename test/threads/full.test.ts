import { afterAll, beforeAll, expect, test } from 'vitest'
import { createBroker } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { createRole } from '../support/role.ts'
import { Thread } from './thread.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

test('A limit above what the server allows is found out together: all are served by what there is, and stats() say so', async () => {
  const allowed = 2
  const role = await createRole(database, allowed)
  await using broker = createBroker({ name: 'more than there is room for', limit: 6 })
  const threads = [new Thread(role.url, { broker: broker.name }), new Thread(role.url, { broker: broker.name })]
  await using pool = createPool(role.url, { broker: broker.name })
  let most = 0
  let running = true
  const counting = (async () => {
    while (running) most = Math.max(most, (await role.sessions()).length)
  })()
  await Promise.all([
    ...threads.map((thread) => thread.tell('work', { times: 60, concurrency: 6, ms: 2 })),
    ...Array.from({ length: 60 }, () => pool.sql`select pg_sleep(0.002)`),
  ])
  running = false
  await counting
  const { refusals, limitFits } = broker.stats()
  expect(most).toBeLessThanOrEqual(allowed)
  expect(refusals).toBeGreaterThan(0)
  // Tried again now and then, by one or two, and not by everybody all the time.
  expect(refusals).toBeLessThan(60)
  expect(limitFits).toBe(true)
})

test('An acquire that nobody has room for says that the server has none', async () => {
  const role = await createRole(database, 1)
  await using broker = createBroker({ name: 'room for one', limit: 3 })
  await using holder = createPool(role.url, { broker: broker.name })
  await using pool = createPool(role.url, { broker: broker.name, acquireTimeoutMs: 600 })
  await using lease = await holder.acquire()
  await lease.sql`select 1`
  await expect(pool.acquire()).rejects.toMatchObject({
    code: 'ERR_ACQUIRE_TIMEOUT',
    message: expect.stringMatching(/the server has had no room for another one for \d+ ms/u),
    cause: { code: 'ERR_CONNECT', full: true, retryable: true, cause: { code: '53300' } },
  })
})

test('An acquire names the thread that keeps connections and does not answer', async () => {
  await using broker = createBroker({ name: 'named', limit: 1 })
  const blocked = new Thread(database.url, { broker: broker.name })
  await blocked.tell('lease')
  const computing = blocked.tell('compute', 3_000)
  await using pool = createPool(database.url, { broker: broker.name, acquireTimeoutMs: 2_000 })
  const pattern = new RegExp(
    String.raw`thread ${blocked.worker.threadId} \(1 held\) has not answered for \d+ ms: its event loop may be blocked`,
    'u',
  )
  await expect(pool.acquire()).rejects.toThrow(pattern)
  expect(broker.stats().members.find(({ held }) => held === 1)?.unresponsiveMs).toBeGreaterThan(250)
  await computing
  // It answers again.
  const again = pool.acquire({ timeoutMs: 3_000 })
  await expect.poll(() => broker.stats().members.find(({ held }) => held === 1)?.unresponsiveMs).toBe(0)
  await blocked.tell('release')
  await (await again).release()
})

test('An acquire names nobody that answers, however long it keeps its connections', async () => {
  await using broker = createBroker({ name: 'all answer', limit: 1 })
  const holder = new Thread(database.url, { broker: broker.name })
  await holder.tell('lease')
  await using pool = createPool(database.url, { broker: broker.name, acquireTimeoutMs: 2_000 })
  await expect(pool.acquire()).rejects.toThrow(/^(?!.*has not answered).*1 of 1 held by 1 member/u)
  await holder.tell('release')
})
