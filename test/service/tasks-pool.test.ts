import { setEnvironmentData } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createService, definePool, taskModule } from 'millpond/service'
import type { Service, TasksOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

type Tasks = typeof import('./fixtures/tasks-more.mjs')
type TasksOfDb = typeof import('./fixtures/tasks-of-db.mjs')

const module = taskModule<Tasks>(new URL('./fixtures/tasks-more.mjs', import.meta.url))
const ofDb = taskModule<TasksOfDb>(new URL('./fixtures/tasks-of-db.mjs', import.meta.url))
const definition = new URL('./fixtures/tasks-db.mjs', import.meta.url)

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
  const url = new URL(database.url)
  setEnvironmentData('test database', { url: database.url, password: decodeURIComponent(url.password) })
})

afterAll(() => database.drop())

async function start(tasks: Partial<TasksOptions<Tasks>> = {}, pool: { max?: number } = {}): Promise<Service<Tasks>> {
  const limit = { name: `tasks pool ${++names}`, connections: 6 }
  const service = createService<Tasks>({ url: database.url, limit, pool, signals: false, tasks: { module, ...tasks } })
  await service.start()
  return service
}

function optionError(make: () => unknown): unknown {
  try {
    make()
  } catch (error) {
    return error
  }
  return undefined
}

describe('the pool of a task', () => {
  test('has as many connections as its thread has tasks, and gives idle ones back if it is asked to', async () => {
    await using service = await start({ workers: 1, concurrency: 3 })
    expect(await service.run('poolNumbers')).toEqual({ idle: 1, max: 3, after: 0 })
  })

  test('of a thread that runs several tasks keeps its connections from one lot to the next', async () => {
    await using service = await start({ workers: 1, concurrency: 3 })
    const pids = new Set<number>()
    for (let lot = 0; lot < 5; lot++) {
      const three = await Promise.all(Array.from({ length: 3 }, () => service.run('backend', 20)))
      expect(new Set(three).size).toBe(3)
      for (const pid of three) pids.add(pid)
    }
    expect(pids.size).toBe(3)
  })

  test('of a thread that runs one task at a time keeps one, whatever the task had', async () => {
    await using service = await start({ workers: 1 }, { max: 3 })
    const before = (await database.sessions()).length
    await service.run('queriesAtOnce', 3)
    await expect.poll(async () => (await database.sessions()).length).toBe(before + 1)
  })

  test('a lease that a task leaves behind is reported with its stack, and taken from it', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warned.mockRestore())
    await using service = await start({ workers: 1 })
    const pid = await service.run('keepsLease')
    const message = String(warned.mock.calls[0]?.[0])
    expect(message).toContain('The task "keepsLease" has ended without releasing a lease')
    expect(message).toContain('tasks-more.mjs')
    await expect(service.run('usesKeptLease')).rejects.toMatchObject({ code: 'ERR_LEASE_RELEASED' })
    await expect.poll(async () => (await database.sessions()).map((one) => one.pid)).not.toContain(pid)
    // Its connection is not the only one that the worker may have.
    expect(await service.run('queries', 1)).toBe(42)
    expect(await service.run('transacts', 1)).toBe(2)
  })
})

describe('definePool()', () => {
  test('gives every thread a pool with functions in its options', async () => {
    await using service = createService({
      url: definition,
      limit: { name: 'defined', connections: 4 },
      signals: false,
      pool: { name: 'by the service' },
      tasks: { module: ofDb, workers: 1 },
    })
    expect(() => service.pool).toThrow(expect.objectContaining({ code: 'ERR_POOL_CLOSED' }))
    await service.start()
    const row = await service.run('point')
    expect(row).toEqual({ point: { x: 1, y: 2 }, path: 'defined' })
    const [own] = await service.pool.sql`select point(3, 4) as point`
    expect(own?.['point']).toEqual({ x: 3, y: 4 })
    expect(service.pool.name).toBe('by the service')
    expect(service.pool.stats().broker).toMatchObject({ limit: 4 })
  })

  test('start() rejects if the module has no definition, or is not there', async () => {
    const wrong = new URL('./fixtures/tasks-more.mjs', import.meta.url)
    const none = createService({ url: wrong, limit: 4, signals: false })
    await expect(none.start()).rejects.toMatchObject({ code: 'ERR_OPTION', option: 'url' })
    const missing = createService({ url: new URL('./fixtures/missing.mjs', import.meta.url), limit: 4, signals: false })
    await expect(missing.start()).rejects.toMatchObject({ code: 'ERR_MODULE_NOT_FOUND' })
  })

  test('refuses a limit; plain options refuse functions, and say where they belong', () => {
    expect(optionError(() => definePool({ limit: 4 } as {}))).toMatchObject({ code: 'ERR_OPTION', option: 'limit' })
    const pool = { password: () => 'secret' } as {}
    expect(optionError(() => createService({ url: database.url, limit: 4, pool }))).toMatchObject({
      code: 'ERR_OPTION',
      option: 'pool.password',
      message: expect.stringContaining('definePool'),
    })
    const deep = { types: { point: { to: 1, from: [1], serialize: String, parse: Number } } } as {}
    expect(optionError(() => createService({ url: database.url, limit: 4, pool: deep }))).toMatchObject({
      code: 'ERR_OPTION',
      option: 'pool.types.point.serialize',
    })
  })
})

describe('several modules of tasks', () => {
  test('have workers of their own, and are called by name', async () => {
    await using service = createService({
      url: definition,
      limit: { name: 'groups', connections: 5 },
      signals: false,
      tasks: { more: { module, workers: 1 }, db: { module: ofDb, workers: 1, concurrency: 2 } },
    })
    await service.start()
    expect(await service.run('more.double', 4)).toBe(8)
    const { point } = await service.run('db.point')
    expect(point.x).toBe(1)
    expect(await service.run('db.other')).not.toBe(0)
    const all: number[] = []
    for await (const n of service.runAll('more.double', [1, 2])) all.push(n)
    expect(all).toEqual([2, 4])
    expect(service.stats().tasks).toMatchObject({ more: { workers: 1, completed: 4 }, db: { workers: 1 } })
    const run = service.run as (name: string) => Promise<unknown>
    await expect(run('double')).rejects.toMatchObject({
      code: 'ERR_TASK',
      message: expect.stringContaining('"more." or "db."'),
    })
    await expect(run('more.nothing')).rejects.toMatchObject({ code: 'ERR_TASK', task: 'more.nothing' })
    await expect(run('more.notAFunction')).rejects.toMatchObject({ code: 'ERR_TASK' })
  })

  test('tasks of two modules that wait for each other are refused, not stuck', async () => {
    await using service = createService({
      url: database.url,
      limit: { name: 'crossing', connections: 5 },
      signals: false,
      tasks: { a: { module, workers: 1 }, b: { module, workers: 1 } },
    })
    await service.start()
    const toB = (input: object) => service.run('a.nests', { name: 'b.nests', input })
    expect(await service.run('a.nests', { name: 'b.double', input: 2 })).toBe(4)
    await expect(toB({ name: 'a.double', input: 2 })).rejects.toMatchObject({ code: 'ERR_TASK_DEADLOCK' })
    const word = new Int32Array(new SharedArrayBuffer(12))
    const holder = service.run('b.gate', { word })
    const nested = service.run('a.nests', { name: 'b.double', input: 3 })
    await expect.poll(() => service.stats().tasks['b']?.queued).toBe(1)
    Atomics.store(word, 0, 1)
    expect(await nested).toBe(6)
    await holder
  })

  test('close() waits for what running tasks ask of other modules', async () => {
    const service = createService({
      url: database.url,
      limit: { name: 'closing', connections: 5 },
      signals: false,
      tasks: { a: { module, workers: 1 }, b: { module, workers: 1 } },
    })
    await service.start()
    const word = new Int32Array(new SharedArrayBuffer(12))
    const asks = service.run('a.nestsLater', { word, name: 'b.double', input: 4 })
    await expect.poll(() => word[1]).toBe(1)
    const closed = service.close()
    Atomics.store(word, 0, 1)
    expect(await asks).toBe(8)
    await closed
    await expect(service.run('b.whoami')).rejects.toMatchObject({ code: 'ERR_TASK' })
  })

  test.each([
    [{ 'a.b': { module } }, 'tasks.a.b'],
    [{ a: 5 }, 'tasks.a'],
    [{ a: { module: 5 } }, 'tasks.a.module'],
    [{ a: { module, works: 5 } }, 'tasks.a.works'],
    [{ module, maxQueue: -1 }, 'tasks.maxQueue'],
    [{ module, killAfterMs: 'x' }, 'tasks.killAfterMs'],
  ])('createService() refuses tasks: %j', (tasks, option) => {
    const error = optionError(() => createService({ url: database.url, limit: 4, tasks: tasks as never }))
    expect(error).toMatchObject({ code: 'ERR_OPTION', option })
  })
})

test.each([undefined, './tasks.js', 'file:///tasks.js', new URL('https://example.com/tasks.js')])(
  'taskModule() refuses what is no file: %s',
  (url) => {
    expect(optionError(() => taskModule(url as URL))).toMatchObject({
      code: 'ERR_OPTION',
      option: 'module',
      message: expect.stringContaining('taskModule must be given a file URL'),
    })
  },
)

test('a service whose workers hold no connection leaves nothing behind', async () => {
  const warned = vi.spyOn(process, 'emitWarning')
  onTestFinished(() => warned.mockRestore())
  const listeners = process.listenerCount('workerMessage')
  const service = await start({ workers: 2 })
  await Promise.all([service.run('queries', 1), service.run('queries', 1)])
  await service.close()
  expect(await database.sessions()).toEqual([])
  expect(process.listenerCount('workerMessage')).toBeLessThanOrEqual(listeners + 1)
  expect(warned).not.toHaveBeenCalled()
})
