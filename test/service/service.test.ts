import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { AcquireTimeoutError, TaskError, WorkerLostError } from 'millpond'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { Service, ServiceOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

type Tasks = typeof import('./fixtures/tasks.mjs')

const tasks = taskModule<Tasks>(new URL('./fixtures/tasks.mjs', import.meta.url))
const http = serverModule(new URL('./fixtures/server.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(options: Partial<ServiceOptions<Tasks>> = {}): Service<Tasks> {
  return createService<Tasks>({
    url: database.url,
    limit: { name: `service ${++names}`, connections: 4 },
    signals: false,
    ...options,
  })
}

async function ask(service: Service<Tasks>, path: string, index = 0): Promise<unknown> {
  const { port } = service.addresses('http')[index] as { port: number }
  return (await fetch(`http://127.0.0.1:${port}${path}`)).json()
}

describe('Service.run()', () => {
  let service: Service<Tasks>

  beforeAll(async () => {
    service = create({ tasks: { module: tasks, workers: 2, concurrency: 2 } })
    await service.start()
  })

  afterAll(() => service.close())

  test('Service.run() runs a task on a worker thread and returns its result', async () => {
    expect(await service.run('add', { a: 1, b: 2 })).toBe(3)
    expect(await service.run('whoami')).not.toBe(0)
  })

  test('Service.run() gives the task a pool under the limit', async () => {
    expect(await service.run('database')).toBe(database.name)
    const members = service.pool.stats().broker?.members ?? []
    expect(members.length).toBeGreaterThanOrEqual(2)
  })

  test('Service.run() rejects with what the task threw: class, name, message, code, cause and the rest', async () => {
    const error: unknown = await service.run('fails').catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(RangeError)
    expect(error).toMatchObject({ name: 'RangeError', message: 'it does not fit', code: 'E_FIT', size: 7 })
    expect((error as Error).cause).toMatchObject({ message: 'the reason' })
    expect((error as Error).stack).toContain('tasks.mjs')
  })

  test('Service.run() keeps the class of millpond’s own errors', async () => {
    const error: unknown = await service.run('timesOut').catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(AcquireTimeoutError)
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', timeoutMs: 20 })
  })

  test('Service.run() rejects with a TaskError for a task that does not exist, and says which do', async () => {
    const run = service.run as (name: string) => Promise<unknown>
    for (const name of ['nothing', 'default', 'toString']) {
      const error: unknown = await run(name).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(TaskError)
      expect(error).toMatchObject({ code: 'ERR_TASK', task: name })
      expect((error as Error).message).toContain('exports add')
    }
  })

  test('Service.run() rejects with a TaskError for what cannot cross threads, both ways, and harms nobody', async () => {
    const before = await service.run('whoami')
    const input = { a: 1, b: (() => 2) as unknown as number }
    await expect(service.run('add', input)).rejects.toMatchObject({ code: 'ERR_TASK', task: 'add' })
    const error: unknown = await service.run('uncloneable').catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(TaskError)
    expect((error as Error).message).toContain('"callback"')
    expect(before).toBeGreaterThan(0)
    expect(await service.run('add', { a: 1, b: 2 })).toBe(3)
  })

  test('Service.run() rejects with a TaskError for something thrown that is no error', async () => {
    await expect(service.run('throwsText')).rejects.toMatchObject({ code: 'ERR_TASK', cause: 'just text' })
  })

  test('Service.run() rejects with the signal’s reason at once, and a loop that never awaits sees it', async () => {
    const reason = new Error('the client has left')
    await expect(service.run('add', { a: 1, b: 2 }, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const running = service.run('computes', { maxMs: 20_000 }, { signal: controller.signal })
    const startedAt = performance.now()
    setTimeout(() => controller.abort(reason), 50)
    await expect(running).rejects.toBe(reason)
    // The thread is free again long before the loop would have ended by itself.
    await Promise.all(Array.from({ length: 8 }, () => service.run('add', { a: 1, b: 2 })))
    expect(performance.now() - startedAt).toBeLessThan(10_000)
  })

  test('Service.run() aborts the task’s own signal', async () => {
    const controller = new AbortController()
    const told = new Int32Array(new SharedArrayBuffer(4))
    const running = service.run('waits', { told }, { signal: controller.signal })
    await expect.poll(() => told[0]).toBe(1)
    controller.abort()
    await expect(running).rejects.toMatchObject({ name: 'AbortError' })
    await expect.poll(() => told[0]).toBe(2)
  })

  test('Service.run() rejects with a WorkerLostError when the thread ends, and a new thread takes its place', async () => {
    const error: unknown = await service.run('dies').catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(WorkerLostError)
    expect(error).toMatchObject({ code: 'ERR_WORKER_LOST', task: 'dies', exitCode: 3 })
    expect(await service.run('database')).toBe(database.name)
  })
})

describe('Service and servers', () => {
  test('Service starts servers on threads of their own, which query and run tasks', async () => {
    await using service = create({
      tasks: { module: tasks, workers: 1 },
      servers: { http: { module: http, workers: 2, data: { answer: 42 } } },
    })
    await service.start()
    const first = await ask(service, '/', 0)
    const second = await ask(service, '/', 1)
    expect(first).toMatchObject({ index: 0, data: { answer: 42 }, aborted: false })
    expect(second).toMatchObject({ index: 1 })
    expect((first as { threadId: number }).threadId).not.toBe((second as { threadId: number }).threadId)
    expect(await ask(service, '/task')).toBe(5)
    expect(await ask(service, '/slow')).toBe('slow')
    expect(await ask(service, '/bad-task')).toMatchObject({ code: 'ERR_TASK' })
  })

  test('Service.start() rejects with what a server threw, and leaves nothing running', async () => {
    const service = create({ servers: { http: { module: http, data: { fail: true } } } })
    await expect(service.start()).rejects.toThrow('the server does not want to start')
    expect(service.pool.stats().phase).toBe('closed')
    await database.sessionsToBe(0)
  })

  test('Service starts a server again whose thread has ended', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await using service = create({ servers: { http: { module: http } } })
    await service.start()
    const before = service.addresses('http')[0]
    await ask(service, '/die').catch(() => {})
    await expect.poll(() => service.addresses('http')[0], { timeout: 10_000 }).not.toEqual(before)
    expect(await ask(service, '/')).toMatchObject({ index: 0 })
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('"http"'), 'MillpondWarning')
    warned.mockRestore()
  })
})

describe('Service.close()', () => {
  test('Service.close() lets requests and tasks finish, then leaves no backend behind', async () => {
    const service = create({
      tasks: { module: tasks, workers: 2 },
      servers: { http: { module: http } },
    })
    await service.start()
    const request = ask(service, '/slow')
    await expect.poll(async () => (await database.sessions()).length).toBeGreaterThan(0)
    const task = service.run('computes', { maxMs: 200 })
    await expect
      .poll(
        async () =>
          (
            await service.pool
              .sql`select count(*)::int as n from pg_stat_activity where query like '%slow%' and state = 'active' and pid <> pg_backend_pid()`
          )[0]?.['n'],
      )
      .toBe(1)
    await service.close()
    expect(await request).toBe('slow')
    expect(await task).toBe('finished')
    await expect(service.run('whoami')).rejects.toMatchObject({ code: 'ERR_TASK' })
    expect(await database.sessions()).toEqual([])
  })

  test('Service.close() before start() resolves', async () => {
    const service = create()
    await service.close()
    await expect(service.run('whoami')).rejects.toMatchObject({ code: 'ERR_TASK' })
  })
})

describe('Service.start()', () => {
  test('Service.start() runs `before` with the main thread’s pool, before tasks and servers', async () => {
    const before = vi.fn(async ({ pool }: { pool: Service<Tasks>['pool'] }) => {
      await pool.sql`create table if not exists made_before (id int)`
    })
    await using service = create({ before })
    await service.start()
    expect(before).toHaveBeenCalledOnce()
    expect(await service.pool.sql`select count(*)::int as n from made_before`).toEqual([{ n: 0 }])
  })

  test('Service.start() rejects with what `before` threw, and closes', async () => {
    const service = create({
      before: () => {
        throw new Error('no migration today')
      },
    })
    await expect(service.start()).rejects.toThrow('no migration today')
    expect(service.pool.stats().phase).toBe('closed')
  })

  test('Service.start() rejects when the module of tasks cannot be loaded', async () => {
    const module = taskModule<Tasks>(new URL('./fixtures/missing.mjs', import.meta.url))
    await expect(create({ tasks: { module } }).start()).rejects.toMatchObject({ code: 'ERR_TASK' })
  })

  test('Service.start() rejects within the deadline when the server is down or refuses us, and tells no password', async () => {
    const down = create({ url: 'postgres://someone:hunter2@127.0.0.1:1/nowhere', pool: { acquireTimeoutMs: 500 } })
    const refused: unknown = await down.start().catch((thrown: unknown) => thrown)
    expect(refused).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect' })
    const wrong = new URL(database.url)
    wrong.password = 'hunter2'
    const denied: unknown = await create({ url: wrong.href })
      .start()
      .catch((thrown: unknown) => thrown)
    expect(denied).toMatchObject({ code: 'ERR_CONNECT', retryable: false })
    for (const error of [refused, denied]) {
      expect(inspectAll(error)).not.toContain('hunter2')
      expect(inspectAll(error).length).toBeGreaterThan(20)
    }
  })
})

describe('createService()', () => {
  test('createService() refuses options that cannot be', () => {
    const wrong: [Record<string, unknown>, string][] = [
      [{ limits: 3 }, 'limits'],
      [{ limit: undefined }, 'limit'],
      [{ limit: 0 }, 'limit'],
      [{ limit: 'ten' }, 'limit'],
      [{ url: undefined }, 'url'],
      [{ pool: { onnotice: () => {} } }, 'pool.onnotice'],
      [{ pool: { limit: 3 } }, 'pool.limit'],
      [{ tasks: { module: './tasks.js' } }, 'tasks.module'],
      [{ tasks: { module: tasks, workers: 0 } }, 'tasks.workers'],
      [{ tasks: { module: tasks, concurrency: 1.5 } }, 'tasks.concurrency'],
      [{ servers: { http: { module: http, data: () => {} } } }, 'servers.http.data'],
    ]
    for (const [options, option] of wrong) {
      let thrown: unknown
      try {
        create(options)
      } catch (error) {
        thrown = error
      }
      expect(thrown, option).toMatchObject({ code: 'ERR_OPTION', option })
      expect((thrown as Error).message).toContain(option)
    }
  })
})

/** Everything that a log could show of an error. */
function inspectAll(error: unknown): string {
  const seen: string[] = []
  for (let one: unknown = error; one instanceof Error; one = one.cause) {
    seen.push(one.stack ?? '', JSON.stringify(one, Object.getOwnPropertyNames(one)))
  }
  return seen.join('\n')
}

test('Service without a url finds the server by PGHOST and so on, in every thread', async () => {
  const { hostname, port, username, password, pathname } = new URL(database.url)
  vi.stubEnv('PGHOST', hostname)
  vi.stubEnv('PGPORT', port)
  vi.stubEnv('PGUSER', username)
  vi.stubEnv('PGPASSWORD', password)
  vi.stubEnv('PGDATABASE', pathname.slice(1))
  try {
    const service = create({ url: undefined, tasks: { module: tasks, workers: 1 } })
    await service.start()
    expect(await service.run('database')).toBe(database.name)
    await service.close()
  } finally {
    vi.unstubAllEnvs()
  }
})
