import { once } from 'node:events'
import { createServer as createNetServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { Service, ServiceOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { holdWarnings } from './support.ts'

const odd = serverModule(new URL('./fixtures/odd-server.mjs', import.meta.url))
const tasks = taskModule<typeof import('./fixtures/tasks.mjs')>(new URL('./fixtures/tasks.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(
  options: Partial<ServiceOptions<typeof import('./fixtures/tasks.mjs')>>,
): Service<typeof import('./fixtures/tasks.mjs')> {
  const limit = { name: `lives ${++names}`, connections: 4 }
  return createService({ url: database.url, limit, signals: false, ...options })
}

function told(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(8))
}

async function isAlive(service: Pick<Service<unknown>, 'addresses'>): Promise<boolean> {
  const { port } = (service.addresses('odd')[0] ?? { port: 1 }) as { port: number }
  return fetch(`http://127.0.0.1:${port}/`).then(
    async (response) => (await response.json()) === 'alive',
    () => false,
  )
}

describe('Service.close() while it starts', () => {
  test('during `before`: nothing is started any more, and start() rejects', async () => {
    let go: (() => void) | undefined
    const seen = told()
    const service = create({
      before: () => new Promise<void>((resolve) => (go = resolve)),
      tasks: { module: tasks, workers: 1 },
      servers: { odd: { module: odd, data: { told: seen } } },
    })
    const started = service.start().catch((error: unknown) => error)
    await expect.poll(() => go).toBeDefined()
    const closed = service.close()
    go?.()
    await closed
    expect(await started).toMatchObject({ code: 'ERR_SERVICE_CLOSED' })
    expect(seen[0]).toBe(0)
    await expect(service.run('whoami')).rejects.toMatchObject({ code: 'ERR_TASK' })
    await database.sessionsToBe(0)
  })

  test('while a server starts: that server is disposed of, well before the deadline', async () => {
    const seen = told()
    const service = create({ servers: { odd: { module: odd, data: { told: seen, slowStart: 300 } } } })
    const started = service.start().catch((error: unknown) => error)
    await expect.poll(() => seen[0], { timeout: 5_000 }).toBe(1)
    const startedAt = performance.now()
    await service.close()
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    expect(seen[1]).toBe(1)
    expect(await started).toMatchObject({ code: 'ERR_SERVICE_CLOSED' })
  })

  test('while the database cannot be reached: start() gives up at once', async () => {
    const nobody = createNetServer().listen(0, '127.0.0.1')
    await once(nobody, 'listening')
    const { port } = nobody.address() as AddressInfo
    nobody.close()
    await once(nobody, 'close')
    holdWarnings()
    const service = create({ url: `postgres://nobody@127.0.0.1:${port}/none` })
    const started = service.start().catch((error: unknown) => error)
    await expect.poll(() => service.pool.stats().waiting).toBe(1)
    const startedAt = performance.now()
    await service.close()
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    expect(await started).toMatchObject({ code: 'ERR_SERVICE_CLOSED', cause: { code: 'ERR_POOL_CLOSED' } })
  })

  test.each([0, 2])('while the database is silent: start() gives up in a second (min: %i)', async (min) => {
    const sockets = new Set<Socket>()
    const silent = createNetServer((socket) => sockets.add(socket.on('error', () => {}))).listen(0, '127.0.0.1')
    onTestFinished(() => {
      silent.close()
      for (const socket of sockets) socket.destroy()
    })
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    holdWarnings()
    const service = create({ url: `postgres://nobody@127.0.0.1:${port}/none`, pool: { min } })
    const started = service.start().catch((error: unknown) => error)
    await expect.poll(() => sockets.size).toBeGreaterThan(0)
    const startedAt = performance.now()
    await service.close()
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    expect(await started).toMatchObject({ code: 'ERR_SERVICE_CLOSED', cause: { code: 'ERR_POOL_CLOSED' } })
  })

  test('while `before` waits for a connection: that is refused, and what it holds is given back', async () => {
    let refused: unknown
    const service = create({
      before: async ({ pool }) => {
        const leases = await Promise.all([1, 2, 3, 4].map(() => pool.acquire()))
        refused = await pool.acquire().catch((error: unknown) => error)
        for (const lease of leases) {
          await lease.sql`select 1`
          await lease.release()
        }
      },
    })
    const started = service.start().catch((error: unknown) => error)
    await expect.poll(() => service.pool.stats().waiting, { timeout: 10_000 }).toBe(1)
    await expect.poll(() => service.pool.stats().leased).toBe(4)
    const startedAt = performance.now()
    await service.close()
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    expect(refused).toMatchObject({ code: 'ERR_POOL_CLOSED' })
    expect(await started).toMatchObject({ code: 'ERR_SERVICE_CLOSED' })
    await database.sessionsToBe(0)
  })

  test('start() after close() rejects, and leaves no listener behind', async () => {
    const before = process.listenerCount('SIGTERM')
    const service = create({ signals: ['SIGTERM'] })
    await service.close()
    await expect(service.start()).rejects.toMatchObject({ code: 'ERR_SERVICE_CLOSED' })
    expect(process.listenerCount('SIGTERM')).toBe(before)
  })
})

describe('Service and servers that misbehave', () => {
  test('a server whose restart fails, though something keeps its thread alive, is started yet again', async () => {
    holdWarnings()
    const seen = told()
    await using service = create({ servers: { odd: { module: odd, data: { told: seen, failsAgain: true } } } })
    await service.start()
    const { port } = service.addresses('odd')[0] as { port: number }
    await fetch(`http://127.0.0.1:${port}/die`).catch(() => {})
    await expect.poll(() => Atomics.load(seen, 0), { timeout: 15_000 }).toBeGreaterThanOrEqual(4)
    await expect.poll(() => isAlive(service), { timeout: 5_000 }).toBe(true)
  })

  test('a server that does not stop as it should is told of, and does not hold up the rest', async () => {
    const warned = holdWarnings()
    const service = create({ servers: { odd: { module: odd, data: { told: told(), badDispose: true } } } })
    await service.start()
    const startedAt = performance.now()
    await service.close()
    expect(performance.now() - startedAt).toBeLessThan(5_000)
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('it does not want to go'), 'MillpondWarning')
  })

  test('a server that is not disposed of in time is told of by its name, with the time', async () => {
    const warned = holdWarnings()
    const data = { told: told(), endlessDispose: true }
    const service = create({ closeTimeoutMs: 1_000, servers: { odd: { module: odd, data } } })
    await service.start()
    await service.close()
    expect(warned).toHaveBeenCalledWith(
      'Server "odd" (0) did not stop as it should: The server "odd" (0) was not disposed of within 800 ms.',
      'MillpondWarning',
    )
  })

  test('a server that has ended without an error is told of with its exit code', async () => {
    const warned = holdWarnings()
    await using service = create({ servers: { odd: { module: odd, data: { told: told() } } } })
    await service.start()
    const { port } = service.addresses('odd')[0] as { port: number }
    await fetch(`http://127.0.0.1:${port}/die`).catch(() => {})
    const text = 'Server "odd" (0) ended (exit code 5); it is started again'
    await expect.poll(() => warned.mock.calls.map(([said]) => said), { timeout: 10_000 }).toContain(text)
  })

  test('a server that fails to start while another one still starts does not wait for the deadline', async () => {
    const seen = told()
    const service = create({
      servers: {
        odd: { module: odd, data: { told: seen, slowStart: 200 } },
        bad: { module: serverModule(new URL('./fixtures/tasks.mjs', import.meta.url)), workers: 1 },
        worse: { module: serverModule(new URL('./fixtures/missing.mjs', import.meta.url)) },
      },
    })
    const startedAt = performance.now()
    await expect(service.start()).rejects.toThrow()
    expect(performance.now() - startedAt).toBeLessThan(6_000)
    await database.sessionsToBe(0)
  })
})

describe('Service.run()', () => {
  test('Service.run() inside `before` rejects, and says that task workers come later', async () => {
    let inner: unknown
    await using service: Service<typeof import('./fixtures/tasks.mjs')> = create({
      tasks: { module: tasks, workers: 1 },
      before: async () => {
        inner = await service.run('whoami').catch((error: unknown) => error)
      },
    })
    await service.start()
    expect(inner).toMatchObject({ code: 'ERR_TASK', message: expect.stringContaining('have not been started') })
  })
})

describe('one service after the other', () => {
  test('on one database, with another limit, works', async () => {
    for (const connections of [4, 5]) {
      const service = create({ limit: connections })
      await service.start()
      expect(service.pool.stats().broker?.limit).toBe(connections)
      await service.close()
    }
  })
})

describe('createService()', () => {
  test.each([
    [{ closeTimeoutMs: 'x' }, 'closeTimeoutMs'],
    [{ closeTimeoutMs: -1 }, 'closeTimeoutMs'],
    [{ signals: ['SIGNAL'] }, 'signals'],
    [{ signals: 'SIGTERM' }, 'signals'],
    [{ before: 5 }, 'before'],
  ])('refuses %j', (options, option) => {
    expect(() => create(options as object)).toThrow(expect.objectContaining({ code: 'ERR_OPTION', option }))
  })

  test('closeTimeoutMs: Infinity waits for a server as long as it takes', async () => {
    const seen = told()
    const service = create({ closeTimeoutMs: Infinity, servers: { odd: { module: odd, data: { told: seen } } } })
    await service.start()
    await service.close()
    expect(seen[1]).toBe(1)
  })
})
