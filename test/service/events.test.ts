import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPool } from 'millpond/postgres'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { Service, ServiceEvent } from 'millpond/service'
import { hasSubscribers } from 'node:diagnostics_channel'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

const module = serverModule(new URL('./fixtures/server.mjs', import.meta.url))
const tasks = taskModule<typeof import('./fixtures/tasks-more.mjs')>(
  new URL('./fixtures/tasks-more.mjs', import.meta.url),
)

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(): { service: Service<typeof import('./fixtures/tasks-more.mjs')>; name: string } {
  const name = `events ${++names}`
  const service = createService({
    url: database.url,
    limit: { name, connections: 4 },
    signals: false,
    // Both have servers of this name, of their own accord.
    servers: { http: { module, data: {} } },
    tasks: { module: tasks, workers: 1 },
  })
  return { service, name }
}

test('Service.on() hears nothing of other services and pools of the same process', async () => {
  const one = create()
  const other = create()
  const heard: ServiceEvent[] = []
  const heardByOther: ServiceEvent[] = []
  one.service.on('event', (event) => heard.push(event))
  other.service.on('event', (event) => heardByOther.push(event))
  await one.service.start()
  const own = heard.length
  expect(heard.map(({ type }) => type)).toContain('millpond:server-ready')
  expect(heardByOther).toEqual([])

  await using pool = createPool(database.url, { name: 'nobody', limit: { name: 'events beside', connections: 1 } })
  await other.service.start()
  await pool.sql`select 1`
  await pool.close()
  await other.service.close()
  const types = heardByOther.map(({ type }) => type)
  expect(types).toEqual(expect.arrayContaining(['millpond:open', 'millpond:join', 'millpond:server-ready']))
  expect(heard.slice(own).map(({ type }) => type)).toEqual([])

  await one.service.run('queries', 1)
  const threads = one.service.stats().threads.map(({ threadId }) => threadId)
  for (const event of heard) {
    expect(threads).toContain(event.thread.threadId)
    if ('broker' in event) expect(event.broker).toBe(one.name)
    if ('pool' in event && event.thread.role === 'main') expect(event.pool).toBe(one.service.pool.name)
  }
  await one.service.close()
})

test('Service.on() of a service that is closed leaves nothing behind', async () => {
  const service = createService({ url: database.url, limit: { name: 'events closed', connections: 2 }, signals: false })
  await service.start()
  await service.close()
  const off = service.on('event', () => expect.unreachable(), { types: ['millpond:leak'] })
  expect(hasSubscribers('millpond:leak')).toBe(false)
  off()
})
