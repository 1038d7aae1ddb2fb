import { readFileSync, readdirSync } from 'node:fs'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { createService, health, serverModule, taskModule } from 'millpond/service'
import type { CheckOptions, HealthOptions, Service, ServiceEvent, ServiceOptions } from 'millpond/service'
import { defaultEvents, frequentEvents } from '../../src/service/watch-events.ts'
import { Forwarder, mostEvents } from '../../src/service/watch-thread.ts'
import type { FromWatched } from '../../src/service/watch-thread.ts'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { ask } from './fixtures/load.mjs'
import { holdWarnings, portOf } from './support.ts'

type Tasks = typeof import('./fixtures/tasks-watched.mjs')

const server = serverModule(new URL('./fixtures/health-server.mjs', import.meta.url))
const tasks = taskModule<Tasks>(new URL('./fixtures/tasks-watched.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(options: Partial<ServiceOptions<Tasks>>): Service<Tasks> {
  const limit = { name: `health ${++names}`, connections: 4 }
  return createService<Tasks>({ url: database.url, limit, signals: false, ...options })
}

describe('health()', () => {
  const check = vi.fn(async () => ({ durationMs: 3, waitedMs: 1 }))

  test('answers /healthz, and /readyz with what its source says', async () => {
    let ready = false
    const get = await probed({ ready: () => ready, check })
    expect(await get('/healthz')).toEqual({ status: 200, body: { live: true }, cache: 'no-store' })
    expect(await get('/readyz')).toEqual({ status: 503, body: { ready: false }, cache: 'no-store' })
    ready = true
    expect(await get('/readyz?full')).toMatchObject({ status: 200, body: { ready: true } })
    expect(await get('/readyz', 'HEAD')).toMatchObject({ status: 200, body: '' })
    expect(check).not.toHaveBeenCalled()
  })

  test('leaves other paths and methods to others', async () => {
    const get = await probed({ ready: () => true, check }, { livePath: '/live', readyPath: '/up' })
    for (const [path, method] of [
      ['/', 'GET'],
      ['/healthz', 'GET'],
      ['/up', 'POST'],
      ['/upper', 'GET'],
    ] as const) {
      expect(await get(path, method)).toMatchObject({ status: 404, body: 'not mine' })
    }
    expect(await get('/live')).toMatchObject({ status: 200 })
    expect(await get('/up')).toMatchObject({ status: 200 })
  })

  test('with `check` makes a round trip, one at a time, and tells of a failure no more than its code', async () => {
    const asked: unknown[] = []
    let go: (() => void) | undefined
    const held = new Promise<void>((resolve) => (go = resolve))
    let fails = false
    const get = await probed(
      {
        ready: () => true,
        check: async (options) => {
          asked.push(options)
          await held
          if (fails)
            throw Object.assign(new Error('password of the database: hunter2'), { code: 'ERR_ACQUIRE_TIMEOUT' })
          return { durationMs: 3, waitedMs: 1 }
        },
      },
      { check: { timeoutMs: 77 } },
    )
    const probes = [get('/readyz'), get('/readyz'), get('/readyz')]
    await expect.poll(() => asked.length).toBe(1)
    expect(await get('/healthz')).toMatchObject({ status: 200 })
    go?.()
    for (const probe of await Promise.all(probes)) {
      expect(probe).toMatchObject({ status: 200, body: { ready: true, durationMs: 3 } })
    }
    expect(asked[0]).toEqual({ timeoutMs: 77 })
    fails = true
    expect(await get('/readyz')).toMatchObject({ status: 503, body: { ready: false, code: 'ERR_ACQUIRE_TIMEOUT' } })
  })

  test('in a server thread knows how the whole service is', async () => {
    holdWarnings()
    const other = serverModule(new URL('./fixtures/listener.mjs', import.meta.url))
    await using service = create({
      servers: {
        http: { module: server, data: { health: { check: true } } },
        other: { module: other, maxRestarts: 0, data: {} },
      },
    })
    await service.start()
    expect(await ask(undefined, portOf(service), '/readyz')).toEqual([
      'answered',
      expect.stringContaining('"ready":true'),
    ])
    const { port } = service.addresses('other')[0] as { port: number }
    await ask(undefined, port, '/die')
    await expect.poll(() => ask(undefined, portOf(service), '/readyz')).toEqual(['wrong', '{"ready":false}'])
    expect(await ask(undefined, portOf(service), '/healthz')).toEqual(['answered', '{"live":true}'])
    await service.reload('other')
    expect((await ask(undefined, portOf(service), '/readyz'))[0]).toBe('answered')
  })
})

describe('Service.ready()', () => {
  test('is false before start(), while it starts, while it closes and after', async () => {
    const seen: boolean[] = []
    const service: Service<Tasks> = create({
      before: () => void seen.push(service.ready()),
      servers: { http: { module: server, data: {} } },
    })
    seen.push(service.ready())
    await service.start()
    expect(service.ready()).toBe(true)
    const closing = service.close()
    seen.push(service.ready())
    await closing
    seen.push(service.ready())
    expect(seen).toEqual([false, false, false, false])
  })
})

describe('Service.check()', () => {
  test('makes a real round trip, and says how long it took', async () => {
    await using service = create({})
    await service.start()
    const { acquires } = service.pool.stats()
    const { durationMs, waitedMs } = await service.check()
    expect(durationMs).toBeGreaterThanOrEqual(waitedMs)
    expect(service.pool.stats().acquires).toBe(acquires + 1)
    expect(service.pool.stats()).toMatchObject({ leased: 0 })
    await expect(service.check({ timeoutMs: 0 })).rejects.toMatchObject({ code: 'ERR_OPTION', option: 'timeoutMs' })
  })

  test('rejects at its deadline where all connections are leased', async () => {
    await using service = create({ pool: { max: 1 } })
    await service.start()
    const lease = await service.pool.acquire()
    await expect(service.check({ timeoutMs: 50 })).rejects.toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', timeoutMs: 50 })
    await lease.release()
    await service.check()
  })

  test('rejects at its deadline where the database does not answer, and keeps no such connection', async () => {
    await using service = create({ pool: { pingAfterIdleMs: 60_000 } })
    await service.start()
    await service.check()
    const [session] = await database.sessions()
    process.kill(session?.pid ?? 0, 'SIGSTOP')
    const go = (): void => void process.kill(session?.pid ?? 0, 'SIGCONT')
    try {
      await expect(service.check({ timeoutMs: 200 })).rejects.toMatchObject({ code: 'ERR_CHECK_TIMEOUT' })
    } finally {
      go()
    }
    await expect.poll(async () => (await database.sessions()).map(({ pid }) => pid)).not.toContain(session?.pid)
    await service.check()
  })
})

describe('Service.stats()', () => {
  test('shows members, threads, queues and restarts', async () => {
    holdWarnings()
    await using service = create({
      tasks: { module: tasks, workers: 2 },
      servers: { http: { module: server, workers: 2, data: {} } },
    })
    expect(service.stats()).toMatchObject({ phase: 'new', ready: false, servers: {}, tasks: {} })
    await service.start()
    await service.run('opens')
    const stats = service.stats()
    expect(stats).toMatchObject({ phase: 'running', ready: true, events: { delivered: 0, dropped: 0 } })
    expect(stats.servers).toMatchObject({ http: { wanted: 2, ready: 2, restarts: 0 } })
    expect(stats.servers['http']?.threads.map(({ index, state }) => [index, state])).toEqual([
      [0, 'ready'],
      [1, 'ready'],
    ])
    expect(stats.tasks['tasks']).toMatchObject({ completed: 1, queued: 0, workers: 2 })
    expect(stats.pool?.broker?.members.length).toBe(2)
    await expect
      .poll(() => roles(service))
      .toEqual(['main', 'server http 0', 'server http 1', 'tasks tasks', 'tasks tasks'])
    const before = service.stats().servers['http']?.threads.map(({ threadId }) => threadId)
    await ask(undefined, portOf(service), '/die')
    await expect
      .poll(() => service.stats().servers['http'], { timeout: 10_000 })
      .toMatchObject({ ready: 2, restarts: 1 })
    expect(service.stats().servers['http']?.threads.map(({ threadId }) => threadId)).not.toEqual(before)
    await expect.poll(() => roles(service).length).toBe(5)
  })

  test('shows a blocked event loop while it is blocked, and afterwards how long that was', async () => {
    await using service = create({ tasks: { module: tasks, workers: 1 } })
    await service.start()
    const loop = () => service.stats().threads.find(({ role }) => role === 'tasks')?.eventLoop
    await expect.poll(() => loop()?.silentMs, { timeout: 10_000 }).toBeLessThan(1_500)
    const blocked = service.run('blocks', { ms: 2_500 })
    await expect.poll(() => loop()?.silentMs ?? 0, { timeout: 10_000 }).toBeGreaterThan(1_800)
    await blocked
    await expect.poll(() => loop()?.delayMs.max ?? 0, { timeout: 10_000 }).toBeGreaterThan(2_000)
    const { delayMs, utilization, silentMs } = loop() ?? {}
    expect(delayMs?.p99).toBeGreaterThan(2_000)
    expect(utilization).toBeGreaterThan(0.05)
    expect(silentMs).toBeLessThan(1_500)
    // Once it has come to more since, or looks at another ten seconds.
    await expect.poll(() => loop()?.delayMs.p50, { timeout: 15_000 }).toBeLessThan(1_000)
  })
})

describe(`Service.on('event')`, () => {
  test('brings the events of all threads, errors included, until it is told to stop', async () => {
    const events: ServiceEvent[] = []
    await using service = create({
      tasks: { module: tasks, workers: 1 },
      servers: { http: { module: server, data: {} } },
    })
    const off = service.on('event', (event) => events.push(event))
    await service.start()
    const worker = await service.run('opens')
    await service.run('publishesOdd')
    const from = (role: string): string[] => events.filter(({ thread }) => thread.role === role).map(({ type }) => type)
    await expect.poll(() => from('tasks')).toContain('millpond:connect-error')
    expect(from('main')).toEqual(
      expect.arrayContaining(['millpond:open', 'millpond:server-start', 'millpond:server-ready']),
    )
    expect(from('tasks')).toEqual(expect.arrayContaining(['millpond:join', 'millpond:open']))
    // Those of single leases have to be asked for.
    expect(events.map(({ type }) => type)).not.toContain('millpond:acquire')
    const odd = events.find(({ type }) => type === 'millpond:connect-error') as { cause?: unknown; thread?: unknown }
    expect(odd.cause).toBeInstanceOf(RangeError)
    expect(odd.cause).toMatchObject({ message: 'the reason', code: 'E_ODD' })
    expect(odd.thread).toEqual({ threadId: worker, role: 'tasks', name: 'tasks' })
    off()
    const count = events.length
    await service.run('publishesOdd')
    await service.run('publishesOdd')
    expect(events.length).toBe(count)
  })

  test('brings what `types` names only, and survives a listener that throws', async () => {
    holdWarnings()
    const events: string[] = []
    await using service = create({ tasks: { module: tasks, workers: 1 } })
    await service.start()
    service.on('event', () => {
      throw new Error('not me')
    })
    service.on('event', ({ type }) => events.push(type), { types: ['millpond:acquire', 'millpond:release'] })
    // The thread may hear of it after its task has begun.
    await expect
      .poll(async () => {
        await service.run('opens')
        return events.length
      })
      .toBeGreaterThan(1)
    expect(new Set(events)).toEqual(new Set(['millpond:acquire', 'millpond:release']))
  })

  test('is bounded: what comes faster than it is taken is dropped and counted', async () => {
    const opened = { probe: 0, flood: 0 }
    let dropped = 0
    await using service = create({ tasks: { module: tasks, workers: 1 } })
    await service.start()
    service.on('event', (event) => {
      if (event.type === 'millpond:open') opened[event.pool as 'probe' | 'flood']++
      if (event.type === 'millpond:dropped') dropped += event.count
    })
    // The thread may hear that it is asked for events after its task has begun.
    await expect
      .poll(async () => {
        await service.run('publishes', { count: 1, pool: 'probe' })
        return opened.probe
      })
      .toBeGreaterThan(0)
    await service.run('publishes', { count: 5_000, pool: 'flood' })
    await expect.poll(() => opened.flood + dropped).toBe(5_000)
    // Of those before, the thread may not know yet that they were taken.
    expect(opened.flood).toBeGreaterThan(mostEvents - 20)
    expect(opened.flood).toBeLessThanOrEqual(mostEvents)
    expect(service.stats().events).toMatchObject({ dropped: 5_000 - opened.flood })
  })

  test('knows every event that there is', () => {
    const root = fileURLToPath(new URL('../../src', import.meta.url))
    const found = new Set<string>()
    for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
      if (!entry.name.endsWith('.ts')) continue
      const text = readFileSync(join(entry.parentPath, entry.name), 'utf8')
      for (const [made] of text.matchAll(/\bchannel(?:sOf)?\([^()]*\)/g)) {
        for (const [, name] of made.matchAll(/'(millpond:[\w-]+)'/g)) found.add(name ?? '')
      }
    }
    expect(found.size).toBeGreaterThan(20)
    expect(found).toEqual(new Set([...defaultEvents, ...frequentEvents]))
  })
})

describe('Forwarder', () => {
  test('goes on when what it sent has been taken, and says first how many are missing', async () => {
    const { channel } = await import('node:diagnostics_channel')
    const said: FromWatched[] = []
    const forwarder = new Forwarder((message) => said.push(message))
    forwarder.want(['test:one'])
    onTestFinished(() => forwarder.want([]))
    for (let i = 0; i < mostEvents + 7; i++) channel('test:one').publish({ i })
    forwarder.flush()
    expect([said[0]?.events.length, said[0]?.dropped]).toEqual([mostEvents, 7])
    channel('test:one').publish({})
    forwarder.flush()
    expect([said[1]?.events.length, said[1]?.dropped]).toEqual([0, 1])
    forwarder.taken(mostEvents)
    channel('test:one').publish({ again: true })
    forwarder.flush()
    expect(said[2]).toEqual({ events: [{ fields: { again: true }, thrown: {} }], dropped: 0 })
    forwarder.want(['test:two'])
    expect(channel('test:one').hasSubscribers).toBe(false)
  })
})

describe('instrument', () => {
  test('is loaded in every thread, before the modules of the service', async () => {
    const instrument = new URL('./fixtures/telemetry.mjs', import.meta.url)
    await using service = create({
      instrument,
      tasks: { module: tasks, workers: 1 },
      servers: { http: { module: server, data: {} } },
    })
    await service.start()
    expect(await service.run('instrumented')).toMatchObject({
      threadId: await service.run('whoami'),
      isMainThread: false,
    })
    const [, body] = await ask(undefined, portOf(service), '/')
    expect(JSON.parse(body)).toMatchObject({ instrumented: { isMainThread: false } })
    expect(globalThis).toMatchObject({ instrumented: { threadId: 0 } })
  })

  test('that cannot be loaded fails the start', async () => {
    const instrument = new URL('./fixtures/missing.mjs', import.meta.url)
    await expect(create({ instrument, tasks: { module: tasks } }).start()).rejects.toMatchObject({
      message: expect.stringContaining('missing.mjs'),
    })
    expect(() => create({ instrument: './telemetry.js' as unknown as URL })).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION', option: 'instrument' }),
    )
  })
})

test('createService() throws in a worker, and says why', async () => {
  const code = `
    import { parentPort } from 'node:worker_threads'
    import { createService } from ${JSON.stringify(new URL('../../dist/src/service/index.js', import.meta.url).href)}
    try { createService({ url: 'postgres://localhost/x', limit: 1 }) } catch ({ code, message }) { parentPort.postMessage({ code, message }) }`
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`))
  const [thrown] = (await once(worker, 'message')) as unknown[]
  expect(thrown).toMatchObject({
    code: 'ERR_NOT_MAIN_THREAD',
    message: expect.stringContaining('this module was imported by one'),
  })
  await worker.terminate()
})

function roles(service: Service<Tasks>): string[] {
  return service
    .stats()
    .threads.map(({ role, name, index }) => [role, name, index].filter((one) => one !== undefined).join(' '))
    .toSorted()
}

/** A server whose probes ask `source`. */
async function probed(
  source: {
    ready: () => boolean
    check: (options?: CheckOptions) => Promise<never> | Promise<{ durationMs: number; waitedMs: number }>
  },
  options?: HealthOptions,
): Promise<(path: string, method?: string) => Promise<{ status: number; body: unknown; cache: string | null }>> {
  const probe = health(source, options)
  const own = createServer((request: IncomingMessage, response: ServerResponse) => {
    if (!probe(request, response)) response.writeHead(404).end('"not mine"')
  })
  own.listen(0, '127.0.0.1')
  await once(own, 'listening')
  onTestFinished(() => void own.close())
  const { port } = own.address() as { port: number }
  return async (path, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method })
    const text = await response.text()
    return {
      status: response.status,
      body: text === '' ? '' : JSON.parse(text),
      cache: response.headers.get('cache-control'),
    }
  }
}
