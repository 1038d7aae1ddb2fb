import { afterAll, beforeAll, expect, test } from 'vitest'
import { createService, taskModule } from 'millpond/service'
import type { Service } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { warnings } from './support.ts'

type Tasks = typeof import('./fixtures/tasks-held.mjs')

const module = taskModule<Tasks>(new URL('./fixtures/tasks-held.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

async function start(concurrency = 1, max = concurrency): Promise<Service<Tasks>> {
  const limit = { name: `held ${++names}`, connections: 6 }
  const tasks = { module, workers: 1, concurrency }
  const pool = { acquireTimeoutMs: 20_000, max }
  const service = createService<Tasks>({ url: database.url, limit, pool, signals: false, tasks })
  await service.start()
  return service
}

test.each(['acquire', 'tryAcquire', 'use', 'reserve', 'session', 'transaction', 'begin', 'cursor', 'copy'] as const)(
  'TaskPool takes from a task that has ended what it holds: %s',
  async (name) => {
    const all = warnings()
    await using service = await start()
    const pid = await service.run(name)
    // The worker's only connection; and nobody's unheard rejection has ended the thread.
    expect(await service.run('answer')).toBe(42)
    expect(await service.run('answer')).toBe(42)
    await expect
      .poll(async () => (await database.sessions()).map((one) => one.pid), { timeout: 15_000 })
      .not.toContain(pid)
    expect(all()).toEqual([expect.stringContaining(`The task "${name}" has ended without releasing a lease`)])
    expect(all()[0]).toContain('tasks-held.mjs')
    expect(service.stats().tasks['tasks']).toMatchObject({ workersLost: 0, failed: 0 })
  },
)

test('TaskPool reports nothing of a task that gives everything back', async () => {
  const all = warnings()
  await using service = await start()
  for (let i = 0; i < 20; i++) await service.run('tidy')
  await service.close()
  expect(all()).toEqual([])
})

test('TaskPool leaves alone a listener, a query that ends by itself, and what is acquired after the end', async () => {
  const all = warnings()
  await using service = await start(1, 3)
  await service.run('listen')
  await service.run('notify', 'one')
  await service.run('query')
  await service.run('later')
  expect(await service.run('laterPid')).toBeGreaterThan(0)
  await expect.poll(async () => (await service.pool.sql`select * from held`).count).toBe(1)
  await service.run('notify', 'two')
  expect(all()).toEqual([])
})

test('TaskPool takes nothing from a task that runs beside one that ends', async () => {
  const all = warnings()
  await using service = await start(3)
  const word = new Int32Array(new SharedArrayBuffer(8))
  const waits = service.run('waits', { word })
  await expect.poll(() => word[1]).toBe(1)
  const held = await service.run('session')
  const other = await service.run('reserve')
  Atomics.store(word, 0, 1)
  const own = await waits
  expect(new Set([held, other, own]).size).toBe(3)
  expect(all()).toHaveLength(2)
})

test('TaskPool gives back what comes for a task that has ended', async () => {
  const all = warnings()
  await using service = await start(2, 1)
  const word = new Int32Array(new SharedArrayBuffer(8))
  const waits = service.run('waits', { word })
  await expect.poll(() => word[1]).toBe(1)
  await service.run('queued')
  Atomics.store(word, 0, 1)
  await waits
  expect(await service.run('answer')).toBe(42)
  expect(service.stats().tasks['tasks']).toMatchObject({ workersLost: 0 })
  expect(all()).toEqual([])
})
