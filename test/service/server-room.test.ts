import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { ServiceOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

type Tasks = typeof import('./fixtures/computing-tasks.mjs')

const module = taskModule<Tasks>(new URL('./fixtures/computing-tasks.mjs', import.meta.url))
const servers = { http: { module: serverModule(new URL('./fixtures/leasing-server.mjs', import.meta.url)) } }

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

afterEach(() => {
  vi.restoreAllMocks()
})

/** What createService says of a service with such a limit and such tasks. */
async function warningsOf(
  connections: number,
  tasks: unknown,
  others: Partial<ServiceOptions<unknown>> = { servers },
): Promise<string[]> {
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const limit = { name: `room ${++names}`, connections }
  const options = { url: 'postgres://nobody@127.0.0.1:1/none', limit, tasks, signals: false, ...others }
  const service = createService(options as ServiceOptions<unknown>)
  await service.close()
  const texts = warned.mock.calls.map(([text]) => String(text))
  warned.mockRestore()
  return texts
}

describe('createService()', () => {
  test('createService() warns, once and with the sum, where task workers that compute leave servers nothing', async () => {
    const texts = await warningsOf(3, { a: { module, workers: 2 }, b: { module, workers: 1 } })
    expect(texts).toEqual([
      'The servers may get no connection: the limit is 3, and each of the 3 task workers may keep one while it computes, which leaves 0. Give it a limit of 4 or more, or fewer task workers.',
    ])
    expect(await warningsOf(2, { module })).toHaveLength(1)
    expect(await warningsOf(1, { module, workers: 2 })).toHaveLength(1)
  })

  test('createService() does not where one is left, where there are no servers, or no tasks', async () => {
    expect(await warningsOf(3, { module })).toEqual([])
    expect(await warningsOf(2, { module }, {})).toEqual([])
    expect(await warningsOf(2, undefined)).toEqual([])
    expect(await warningsOf(2, { module }, { servers, pool: { maxIdle: 0 } })).toEqual([])
  })
})

test('Servers get what the limit has beyond the task workers, all of which compute', async () => {
  const limit = { name: `room ${++names}`, connections: 4 }
  const tasks = { module, workers: 2 }
  const pool = { acquireTimeoutMs: 15_000 }
  const service = createService<Tasks>({ url: database.url, limit, tasks, servers, pool, signals: false })
  const words = new Int32Array(new SharedArrayBuffer(8))
  try {
    await service.start()
    const { port } = service.addresses('http')[0] as { port: number }
    const more = async (): Promise<string> => (await fetch(`http://127.0.0.1:${port}/more`)).text()
    const computing = [service.run('compute', { words }), service.run('compute', { words })]
    await expect.poll(() => Atomics.load(words, 0), { timeout: 15_000 }).toBe(2)
    // The main thread has one, too, which it gives back.
    expect(await more()).toBe('1')
    expect(await more()).toBe('2')
    expect(await database.sessions()).toHaveLength(4)
    const third = more()
    Atomics.store(words, 1, 1)
    expect(await Promise.all(computing)).toEqual([
      { idle: 1, told: true },
      { idle: 1, told: true },
    ])
    expect(await third).toBe('3')
  } finally {
    Atomics.store(words, 1, 1)
    await service.close()
  }
})
