import { createServer } from 'node:net'
import { once } from 'node:events'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { Service, ServiceOptions } from 'millpond/service'
import { ListenDesk } from '../../src/service/listen-desk.ts'
import type { Asker } from '../../src/service/listen-desk.ts'
import { canSharePort } from '../../src/service/listen-share.ts'
import type { ListenAnswer } from '../../src/service/server-messages.ts'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { ask } from './fixtures/load.mjs'
import { portOf, warnings } from './support.ts'

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
  const limit = { name: `listen ${++names}`, connections: 6 }
  return createService<Tasks>({ url: database.url, limit, signals: false, ...options })
}

async function get(port: number, path = '/'): Promise<unknown> {
  const [outcome, body] = await ask(undefined, port, path)
  if (outcome !== 'answered') throw new Error(`${outcome}: ${body}`)
  return JSON.parse(body)
}

describe('ServerContext.listen()', () => {
  test('shares the first thread’s port with all threads, port 0 included', async () => {
    warnings()
    await using service = create({ servers: { http: { module, workers: 3, data: {} } } })
    await service.start()
    const [first, ...others] = service.addresses('http') as { port: number }[]
    expect(first?.port).toBeGreaterThan(0)
    expect(others).toEqual([first, first])
    expect(await get(portOf(service))).toMatchObject({ life: 1 })
  })

  test.runIf(shares)('lets every thread answer where a port can be shared', async () => {
    const warned = warnings()
    await using service = create({ servers: { http: { module, workers: 3, data: { requireReusePort: true } } } })
    await service.start()
    const seen = new Set<number>()
    for (let i = 0; i < 300 && seen.size < 3; i++) {
      seen.add(((await get(portOf(service))) as { index: number }).index)
    }
    expect(seen).toEqual(new Set([0, 1, 2]))
    expect(warned()).toEqual([])
  })

  test.runIf(!shares)('lets one thread answer elsewhere, and says so once', async () => {
    const warned = warnings()
    await using service = create({ servers: { http: { module, workers: 3, data: {} } } })
    await service.start()
    const answers = await Promise.all(Array.from({ length: 30 }, () => get(portOf(service))))
    expect(new Set(answers.map((answer) => (answer as { index: number }).index)).size).toBe(1)
    expect(warned()).toEqual([expect.stringContaining('one of them listens, the others stand by')])
  })

  test.runIf(!shares)('does not warn of a server that has one thread', async () => {
    const warned = warnings()
    await using service = create({ servers: { http: { module, data: {} } } })
    await service.start()
    expect(await get(portOf(service))).toMatchObject({ index: 0 })
    expect(warned()).toEqual([])
  })

  test.runIf(!shares)('with requireReusePort rejects where a port cannot be shared', async () => {
    const service = create({ servers: { http: { module, workers: 2, data: { requireReusePort: true } } } })
    await expect(service.start()).rejects.toMatchObject({
      name: 'PoolError',
      code: 'ERR_REUSE_PORT',
      message: expect.stringContaining('22.12'),
    })
    await database.sessionsToBe(0)
  })

  test('of a thread that ends, another one takes over at once', async () => {
    warnings()
    await using service = create({ servers: { http: { module, workers: 2, data: {} } } })
    await service.start()
    const port = portOf(service)
    const { threadId } = (await get(port)) as { threadId: number }
    await ask(undefined, port, '/die')
    // Before the one that has ended is back.
    await expect
      .poll(() => ask(undefined, port, '/').then(([outcome]) => outcome), { timeout: 5_000, interval: 5 })
      .toBe('answered')
    await expect.poll(() => service.ready()).toBe(true)
    // Where all listen, any of them may have been the one.
    if (!shares) expect(await get(port)).not.toMatchObject({ threadId })
  })

  test('listens on several ports, each of which is shared', async () => {
    warnings()
    await using service = create({ servers: { http: { module, workers: 2, data: { second: true } } } })
    await service.start()
    const addresses = service.addresses('http') as [{ port: number } | null, { port: number }][]
    expect(addresses[0]?.[1]).toEqual(addresses[1]?.[1])
    const second = addresses[0]?.[1].port ?? 0
    expect(await ask(undefined, second, '/')).toEqual(['answered', 'second'])
  })

  test.each(['fastify', 'express', 'late'])('takes an app that listens as %s does', async (app) => {
    await using service = create({ servers: { http: { module, data: { app, returns: false } } } })
    await service.start()
    const port = portOf(service)
    expect(await get(port)).toMatchObject({ index: 0 })
    const slow = ask(undefined, port, '/stopping')
    await get(port)
    await service.close()
    expect(await slow).toEqual(['answered', '"finished"'])
    expect((await ask(undefined, port, '/'))[0]).toBe('refused')
  })

  test.each([
    ['mute', 'cannot tell on which server'],
    ['none', 'takes a server of node:http'],
  ])('refuses an app that is %s', async (app, message) => {
    await expect(create({ servers: { http: { module, data: { app } } } }).start()).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: expect.stringContaining(message),
    })
  })

  test.each([
    [{ port: '80' }, "port must be a whole number from 0 to 65535: got '80'"],
    [{ port: 70_000 }, 'from 0 to 65535'],
    [{ host: 5 }, 'host must be a string'],
  ])('refuses %j', async (data, message) => {
    await expect(create({ servers: { http: { module, data } } }).start()).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: expect.stringContaining(message),
    })
  })

  test('rejects for a port that somebody else has, though it could be shared', async () => {
    const other = createServer()
    // As another process of this service would listen.
    other.listen({ port: 0, host: '127.0.0.1', ...(shares ? { reusePort: true } : undefined) })
    await once(other, 'listening')
    onTestFinished(() => void other.close())
    const { port } = other.address() as { port: number }
    const service = create({ servers: { http: { module, workers: 2, data: { port } } } })
    await expect(service.start()).rejects.toMatchObject({ code: 'EADDRINUSE', port })
  })
})

describe('canSharePort()', () => {
  test.each([
    ['20.19.0', 'linux', false],
    ['22.11.0', 'linux', false],
    ['22.12.0', 'linux', true],
    ['23.0.0', 'linux', false],
    ['23.1.0', 'linux', true],
    ['26.0.0', 'linux', true],
    ['26.0.0', 'darwin', false],
    ['26.0.0', 'win32', false],
  ] as const)('of Node %s on %s is %s', (version, platform, expected) => {
    expect(canSharePort(version, platform)).toBe(expected)
  })
})

class Thread implements Asker {
  readonly answers: ListenAnswer[] = []
  answer(_key: string, answer: ListenAnswer): void {
    this.answers.push(answer)
  }
  get last(): string | undefined {
    const last = this.answers.at(-1)
    return last?.how === 'listen' ? `listen ${last.port}` : last?.how
  }
}

describe('ListenDesk', () => {
  const key = '0 :0'
  const desk = (share: boolean, threads: readonly Thread[]): ListenDesk => {
    const made = new ListenDesk({ workers: 2, shares: share, warn: () => {} })
    for (const thread of threads) made.ask(thread, key, 0, undefined)
    return made
  }

  test.each([true, false])(
    'lets one thread go first; when it ends before it listens, the next one (shared: %s)',
    (share) => {
      const [a, b, c] = [new Thread(), new Thread(), new Thread()] as const
      const here = desk(share, [a, b, c])
      expect([a.last, b.last, c.last]).toEqual(['listen 0', undefined, undefined])
      here.gone(a)
      expect([b.last, c.last]).toEqual(['listen 0', undefined])
      here.listens(b, key, { port: 7 })
      expect(c.last).toBe(share ? 'listen 7' : 'stand by')
      // It is answered once it asks again, by another life.
      const again = new Thread()
      here.ask(again, key, 0, undefined)
      expect(again.last).toBe(share ? 'listen 7' : 'stand by')
    },
  )

  test('without sharing hands the port on when who has it listens no more, and skips who cannot', () => {
    const [a, b, c] = [new Thread(), new Thread(), new Thread()] as const
    const here = desk(false, [a, b, c])
    here.listens(a, key, { port: 7 })
    expect([b.last, c.last]).toEqual(['stand by', 'stand by'])
    here.listensNot(a, key)
    expect([b.last, c.last]).toEqual(['listen 7', 'stand by'])
    here.listensNot(b, key, { kind: 'value', value: 'taken' })
    // A port of chance that cannot be had any more: another one will do.
    expect(c.last).toBe('listen 0')
    here.listens(c, key, { port: 8 })
    here.gone(a)
    here.gone(b)
    expect([a, b].map(({ answers }) => answers.length)).toEqual([1, 2])
  })

  test('with sharing keeps the port for a thread that comes when all others have ended', () => {
    const [a, b] = [new Thread(), new Thread()] as const
    const here = desk(true, [a])
    here.listens(a, key, { port: 7 })
    here.gone(a)
    here.ask(b, key, 0, undefined)
    expect(b.last).toBe('listen 7')
  })
})

test('ServerContext.run() rejects at once where the service has no tasks', async () => {
  await using service = create({ servers: { http: { module, data: {} } } })
  await service.start()
  for (let i = 0; i < 2; i++) {
    const [outcome, body] = await ask(undefined, portOf(service), '/task')
    expect(outcome).toBe('wrong')
    expect(JSON.parse(body)).toMatchObject({ name: 'TaskError', code: 'ERR_TASK' })
  }
})

test('ServerContext.run() runs tasks from a server that listens', async () => {
  await using service = create({ tasks: { module: tasks, workers: 1 }, servers: { http: { module, data: {} } } })
  await service.start()
  expect(await get(portOf(service), '/task')).toBe(5)
})
