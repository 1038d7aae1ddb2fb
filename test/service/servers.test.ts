import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { ServerEvent, Service, ServiceOptions } from 'millpond/service'
import { canSharePort } from '../../src/service/listen-share.ts'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { ask, load } from './fixtures/load.mjs'
import { portOf, warnings, words } from './support.ts'

type Tasks = typeof import('./fixtures/tasks.mjs')

const module = serverModule(new URL('./fixtures/listener.mjs', import.meta.url))
const tasks = taskModule<Tasks>(new URL('./fixtures/tasks.mjs', import.meta.url))
const shares = canSharePort()

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(options: Partial<ServiceOptions<Tasks>>): Service<Tasks> {
  const limit = { name: `servers ${++names}`, connections: 6 }
  return createService<Tasks>({ url: database.url, limit, signals: false, ...options })
}

/** What is published in this thread of servers. */
function events(): ServerEvent[] {
  const seen: ServerEvent[] = []
  const listener = (event: unknown): void => void seen.push(event as ServerEvent)
  for (const what of ['start', 'ready', 'exit', 'restart', 'failed', 'reload']) {
    subscribe(`millpond:server-${what}`, listener)
    onTestFinished(() => void unsubscribe(`millpond:server-${what}`, listener))
  }
  return seen
}

/** The threads that are made from now on, by their names. */
function threads(): Map<string, Worker> {
  const living = new Map<string, Worker>()
  const listener = (worker: Worker): void => {
    const { threadId } = worker
    living.set(String(threadId), worker)
    worker.once('exit', () => living.delete(String(threadId)))
  }
  process.on('worker', listener)
  onTestFinished(() => void process.off('worker', listener))
  return living
}

describe('a server that does not get ready', () => {
  test('is ended at its deadline, and start() says so', async () => {
    const service = create({ servers: { http: { module, startTimeoutMs: 400, data: { neverFrom: 1 } } } })
    await expect(service.start()).rejects.toMatchObject({
      code: 'ERR_SERVER_START_TIMEOUT',
      message: 'The server "http" (0) was not ready within 400 ms.',
    })
    await database.sessionsToBe(0)
  })
})

describe('a server that ends too often', () => {
  test('is given up after maxRestarts, until reload() brings it back', async () => {
    const warned = warnings()
    const seen = events()
    const lives = words()
    const data = { lives, failFrom: 2, failTo: 5 }
    await using service = create({ servers: { http: { module, maxRestarts: 2, data } } })
    await service.start()
    expect(service.ready()).toBe(true)
    await ask(undefined, portOf(service), '/die')
    await expect.poll(() => seen.some(({ type }) => type === 'millpond:server-failed'), { timeout: 10_000 }).toBe(true)
    // The first life, and two more that did not begin.
    expect(lives[0]).toBe(3)
    expect(service.ready()).toBe(false)
    expect(seen.filter(({ type }) => type === 'millpond:server-restart')).toMatchObject([
      { server: 'http', index: 0, pauseMs: 0, restarts: 1 },
      { pauseMs: 100, restarts: 2 },
    ])
    expect(seen.at(-1)).toMatchObject({ type: 'millpond:server-failed', restarts: 2 })
    expect(warned().at(-1)).toContain(
      'Server "http" (0) ended 3 times within a minute (no life 3); it is not started again',
    )
    await expect(service.reload()).rejects.toThrow('no life 4')
    expect(service.ready()).toBe(false)
    await service.reload('http')
    expect(service.ready()).toBe(true)
    expect((await ask(undefined, portOf(service), '/'))[0]).toBe('answered')
  })

  test('with maxRestarts: 0 is never started again', async () => {
    warnings()
    const lives = words()
    await using service = create({ servers: { http: { module, maxRestarts: 0, data: { lives } } } })
    await service.start()
    await ask(undefined, portOf(service), '/throw')
    await expect.poll(() => service.ready(), { timeout: 10_000 }).toBe(false)
    expect(lives[0]).toBe(1)
  })

  test('leaves a service ready while another thread of that server is', async () => {
    warnings()
    const seen = events()
    await using service = create({ servers: { http: { module, workers: 2, data: {} } } })
    await service.start()
    await ask(undefined, portOf(service), '/die')
    await expect.poll(() => seen.filter(({ type }) => type === 'millpond:server-exit').length).toBe(1)
    expect(service.ready()).toBe(true)
    expect(seen.find(({ type }) => type === 'millpond:server-exit')).toMatchObject({ expected: false })
  })
})

describe('a server that is started again', () => {
  test('belongs to the limit before it is ready', async () => {
    warnings()
    const seen = events()
    const data = { lives: words(), neverFrom: 2 }
    await using service = create({ closeTimeoutMs: 1_000, servers: { http: { module, data } } })
    await service.start()
    const members = (): number[] => service.pool.stats().broker?.members.map(({ threadId }) => threadId) ?? []
    expect(members()).toEqual([0])
    await ask(undefined, portOf(service), '/die')
    const starts = (): ServerEvent[] => seen.filter(({ type }) => type === 'millpond:server-start')
    await expect.poll(starts, { timeout: 10_000 }).toHaveLength(2)
    const { threadId } = starts()[1] as { threadId?: number }
    await expect.poll(members, { timeout: 10_000 }).toEqual([0, threadId])
    expect(service.ready()).toBe(false)
  })
})

describe('Service.reload()', () => {
  test('replaces every thread, one after the other, and never has fewer than wanted', async () => {
    warnings()
    const seen = events()
    const lives = words()
    // Both threads and the main one keep connections: there is no room for a third that does.
    const pool = { min: 2, max: 4 }
    await using service = create({ pool, servers: { http: { module, workers: 2, data: { lives, opens: true } } } })
    await service.start()
    const port = portOf(service)
    await service.reload()
    expect(lives[0]).toBe(4)
    let ready = 0
    const least: number[] = []
    for (const { type } of seen) {
      if (type === 'millpond:server-ready') ready++
      if (type === 'millpond:server-exit') ready--
      if (type === 'millpond:server-exit') least.push(ready)
    }
    expect(least).toEqual([2, 2])
    expect(seen.filter(({ type }) => type === 'millpond:server-exit')).toMatchObject([
      { index: 0, expected: true },
      { index: 1, expected: true },
    ])
    expect(portOf(service)).toBe(port)
    // Where threads cannot share a port, the last one to go leaves a moment in which nobody listens.
    await expect.poll(async () => (await ask(undefined, port, '/'))[1], { timeout: 5_000 }).toMatch(/"life":[34]/)
    // What the new ones keep is what their options say.
    await expect.poll(() => service.pool.stats().broker?.members.map(({ min }) => min)).toEqual([2, 2, 2])
  })

  test('under load drops no request that has been accepted', { timeout: 60_000 }, async () => {
    warnings()
    const received = words()
    await using service = create({
      tasks: { module: tasks, workers: 1 },
      servers: { http: { module, workers: 2, data: { received } } },
    })
    await service.start()
    const clients = load(portOf(service), ['/', '/query', '/task', '/sleep'], 8)
    await expect.poll(() => clients.counts.answered, { timeout: 10_000 }).toBeGreaterThan(100)
    await service.reload()
    const before = clients.counts.answered
    await expect.poll(() => clients.counts.answered, { timeout: 10_000 }).toBeGreaterThan(before + 100)
    await service.reload()
    const { answered, cut, reset, wrong, refused, unmet } = await clients.stop()
    expect({ cut, reset, wrong, answers: clients.answers }).toEqual({ cut: 0, reset: 0, wrong: 0, answers: [] })
    expect(answered).toBe(received[0])
    // Connections that the system had made and a thread had not accepted when it ceased to listen.
    expect(unmet).toBeLessThanOrEqual(8)
    // Without a port that can be shared there is a moment in which nobody listens.
    if (shares) expect(refused).toBe(0)
  })

  test('rejects if a new thread does not get ready; the old ones go on', async () => {
    warnings()
    const seen = events()
    const data = { lives: words(), failFrom: 3, opens: true }
    await using service = create({ pool: { min: 1 }, servers: { http: { module, workers: 2, data } } })
    await service.start()
    await expect(service.reload('http')).rejects.toThrow('no life 3')
    expect(service.ready()).toBe(true)
    expect((await ask(undefined, portOf(service), '/'))[1]).toMatch(/"life":[12]/)
    expect(seen.filter(({ type }) => type === 'millpond:server-restart')).toEqual([])
    await expect.poll(() => service.pool.stats().broker?.members.map(({ min }) => min)).toEqual([1, 1, 1])
    await expect(service.reload('nothing')).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: 'There is no server "nothing": there are http.',
    })
  })

  test('that is under way when close() comes ends with it', async () => {
    warnings()
    const lives = words()
    const data = { lives, neverFrom: 3 }
    const service = create({ closeTimeoutMs: 1_000, servers: { http: { module, workers: 2, data } } })
    await service.start()
    const reloading = service.reload()
    await expect.poll(() => lives[0]).toBe(3)
    await service.close()
    await reloading.catch(() => undefined)
    expect(lives[0]).toBe(3)
    await database.sessionsToBe(0)
    await expect(service.reload()).rejects.toMatchObject({ code: 'ERR_SERVICE_CLOSED' })
  })

  test('twice at a time is once', async () => {
    warnings()
    const lives = words()
    await using service = create({ servers: { http: { module, data: { lives } } } })
    await service.start()
    await Promise.all([service.reload(), service.reload('http')])
    expect(lives[0]).toBe(2)
  })
})

describe('Service.close()', () => {
  test('cuts off what a server never answers, disposes, and closes its pool, all within the deadline', async () => {
    const service = create({ closeTimeoutMs: 1_500, servers: { http: { module, data: {} } } })
    await service.start()
    const never = ask(undefined, portOf(service), '/hangs')
    expect((await ask(undefined, portOf(service), '/query'))[0]).toBe('answered')
    const startedAt = performance.now()
    await service.close()
    expect(performance.now() - startedAt).toBeLessThan(1_500)
    expect((await never)[0]).toBe('unmet')
    expect(await database.sessions()).toEqual([])
  })

  test('answers the request that a kept-alive connection sends just then, and tells it that it was the last', async () => {
    const service = create({ servers: { http: { module, data: {} } } })
    await service.start()
    const clients = load(portOf(service), ['/'], 4)
    await expect.poll(() => clients.counts.answered, { timeout: 10_000 }).toBeGreaterThan(50)
    await service.close()
    const { reset, cut, wrong } = await clients.stop()
    expect({ reset, cut, wrong }).toEqual({ reset: 0, cut: 0, wrong: 0 })
  })
})

describe('threads that are killed under load', () => {
  test(
    'every caller of a task gets its result, every server comes back, and nothing stays behind',
    { timeout: 90_000 },
    async () => {
      warnings()
      const living = threads()
      const service = create({
        limit: { name: `servers ${++names}`, connections: 5 },
        tasks: { module: tasks, workers: 1 },
        servers: { http: { module, workers: 2, maxRestarts: Infinity, data: {} } },
      })
      await service.start()
      const port = portOf(service)
      const tasksOnly = new Set([...living.values()].slice(0, 1))
      let going = true
      const outcomes = { ok: 0, failed: [] as unknown[] }
      const callers = Array.from({ length: 4 }, async () => {
        while (going) {
          await service.run('database').then(
            () => outcomes.ok++,
            (error: unknown) => outcomes.failed.push(error),
          )
        }
      })
      const clients = load(port, ['/', '/query', '/task'], 6)
      for (let kill = 0; kill < 6; kill++) {
        const { answered } = clients.counts
        await expect.poll(() => clients.counts.answered, { timeout: 10_000 }).toBeGreaterThan(answered + 30)
        const servers = [...living.values()].filter((worker) => !tasksOnly.has(worker))
        const victim = servers[kill % servers.length]
        await victim?.terminate()
      }
      const { answered } = clients.counts
      await expect.poll(() => clients.counts.answered, { timeout: 10_000 }).toBeGreaterThan(answered + 30)
      await expect.poll(() => service.ready(), { timeout: 10_000 }).toBe(true)
      going = false
      await Promise.all(callers)
      const counts = await clients.stop()
      // Those that the dead threads were answering are the clients' to repeat; no other ever is.
      expect({ failed: outcomes.failed, wrong: clients.answers }).toEqual({ failed: [], wrong: [] })
      expect(counts.reset + counts.unmet + counts.cut).toBeLessThanOrEqual(6 * 6)
      expect(outcomes.ok).toBeGreaterThan(20)
      await service.close()
      await database.sessionsToBe(0)
    },
  )
})

describe('createService()', () => {
  test.each([
    [{ startTimeoutMs: 0 }, 'servers.http.startTimeoutMs'],
    [{ startTimeoutMs: '5' }, 'servers.http.startTimeoutMs'],
    [{ maxRestarts: -1 }, 'servers.http.maxRestarts'],
    [{ maxRestarts: 1.5 }, 'servers.http.maxRestarts'],
    [{ restarts: 1 }, 'servers.http.restarts'],
  ])('refuses %j of a server', (options, option) => {
    expect(() => create({ servers: { http: { module, ...(options as object) } } })).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION', option }),
    )
  })
})
