import { describe, expect, test } from 'vitest'
import { createService, definePool, health, poolModule, serverModule, taskModule } from 'millpond/service'
import type { HealthSource, ServiceOptions } from 'millpond/service'
import { testContext } from 'millpond/testing'
import { createServer } from 'node:http'

const tasks = taskModule<{ double: (n: number) => number }>(new URL('./fixtures/tasks-more.mjs', import.meta.url))
const http = serverModule(new URL('./fixtures/server.mjs', import.meta.url))
const secret = 'postgres://user:s3cret@127.0.0.1:1/database'
const base = { url: secret, limit: 2, signals: false } as const

/** What this throws, or rejects with. */
async function thrown(make: () => unknown): Promise<unknown> {
  try {
    await make()
  } catch (error) {
    return error
  }
  return undefined
}

function create(options: object): () => unknown {
  return () => createService({ ...base, ...options } as ServiceOptions<unknown>)
}

/** The option, and words of the message: what was got, and what is allowed. */
type Refused = readonly [option: string, ...words: string[]]

async function expectRefused(make: () => unknown, [option, ...words]: Refused): Promise<void> {
  const error = await thrown(make)
  expect(error).toMatchObject({ code: 'ERR_OPTION', option })
  const { message } = error as Error
  for (const word of words) expect(message).toContain(word)
  expect(message).not.toContain('s3cret')
}

describe('createService() refuses', () => {
  test.each<[string, object, Refused]>([
    ['servers: 5', { servers: 5 }, ['servers', 'got 5', '{ http: { module } }']],
    ['servers: null', { servers: null }, ['servers', 'got null']],
    ['a server that is null', { servers: { a: null } }, ['servers.a', 'got null', '{ module }']],
    ['a server without a module', { servers: { a: {} } }, ['servers.a.module', 'serverModule(', 'got undefined']],
    [
      'a URL as a module',
      { servers: { a: { module: new URL(secret) } } },
      ['servers.a.module', 'serverModule(', '***'],
    ],
    ['pool: 5', { pool: 5 }, ['pool', 'got 5', '{ max: 5 }']],
    ['pool: []', { pool: [] }, ['pool', 'got an array']],
    ['a database as pool', { pool: secret }, ['pool', ':***@']],
    ['pool: null', { pool: null }, ['pool', 'got null']],
    ['tasks: 5', { tasks: 5 }, ['tasks', 'got 5', '{ module }']],
    ['tasks: {}', { tasks: {} }, ['tasks', 'got none', '{ module }']],
    ['tasks: []', { tasks: [] }, ['tasks', 'got an array']],
    ['a group that is null', { tasks: { a: null } }, ['tasks.a', 'got null']],
    ['workers that are a text', { tasks: { module: tasks, workers: '2' } }, ['tasks.workers', "got '2'", '1 to 1024']],
    ['maxQueue as a text', { tasks: { module: tasks, maxQueue: '5' } }, ['tasks.maxQueue', "got '5'", 'Infinity']],
    ['maxQueue below 0', { tasks: { module: tasks, maxQueue: -1 } }, ['tasks.maxQueue', 'got -1']],
    [
      'maxRestarts as null',
      { servers: { a: { module: http, maxRestarts: null } } },
      ['servers.a.maxRestarts', 'got null'],
    ],
    ['before: 5', { before: 5 }, ['before', 'got 5', 'function']],
    ['checkLimit: 1', { checkLimit: 1 }, ['checkLimit', 'got 1', 'true or false']],
    ['signals: true', { signals: true }, ['signals', 'got true', 'SIGTERM']],
    ['a signal that is none', { signals: ['SIGX'] }, ['signals', "got 'SIGX'", 'SIGTERM']],
    ['instrument: a database', { instrument: new URL(secret) }, ['instrument', '***', 'import.meta.url']],
    ['a wrong url', { url: 'http://user:s3cret@host' }, ['url', '***']],
    ['no limit', { limit: undefined }, ['limit', 'got none']],
    ['a limit that is a text', { limit: '5' }, ['limit', "got '5'"]],
    ['an unknown option', { server: {} }, ['server', 'allowed are url, limit']],
    ['an unknown option of the pool', { pool: { maxx: 1 } }, ['maxx', 'allowed are']],
  ])('%s', (_, options, refused) => expectRefused(create(options), refused))

  test.each([[undefined], [null], [5], [secret]])('%j in place of options', (options) =>
    expectRefused(() => createService(options as never), ['options', 'got', 'createService({ url, limit: 20 })']),
  )

  test.each<[string, object, Refused]>([
    ['an unknown option of the pool', { pool: { maxx: 1 } }, ['maxx', 'allowed are']],
    ['a limit that cannot be', { limit: 0 }, ['limit', 'got 0']],
    ['a limit that is a text', { limit: '5' }, ['limit', "got '5'"]],
  ])('beside a definition, before it is loaded: %s', (_, options, refused) =>
    expectRefused(create({ url: new URL('file:///nowhere.js'), ...options }), refused),
  )
})

test('createService() takes what it is documented to take', () => {
  const servers = { a: { module: http, maxRestarts: Infinity, data: null } }
  for (const options of [{}, { servers }, { servers: {} }, { pool: {}, tasks: { module: tasks, maxQueue: 0 } }]) {
    expect(create(options)).not.toThrow()
    expect(create({ url: new URL('file:///nowhere.js'), ...options })).not.toThrow()
  }
})

describe('taskModule(), serverModule(), poolModule() and definePool()', () => {
  test.each<[string, () => unknown, Refused]>([
    ['the URL of a database', () => taskModule(new URL(secret)), ['module', 'file URL', 'postgres://user:***@']],
    ['a text', () => taskModule('./tasks.js' as never), ['module', 'file URL', "'./tasks.js'"]],
    ['the text of a database', () => serverModule(secret as never), ['module', 'file URL', 'postgres://user:***@']],
    ['a database in place of its definition', () => poolModule(new URL(secret)), ['module', 'file URL', ':***@']],
    ['nothing', () => serverModule(undefined as never), ['module', 'got undefined']],
    ['a parameter', () => taskModule(new URL('postgres://h/d?password=s3cret')), ['module', 'password=***']],
    ['a database in place of options', () => definePool(secret as never), ['options', ':***@']],
    ['no options', () => definePool(undefined as never), ['options', 'got undefined']],
    ['a text as options', () => definePool(5 as never), ['options', 'got 5']],
  ])('refuse %s, and show no password', (_, make, refused) => expectRefused(make, refused))
})

describe('listen() of a server refuses', () => {
  test.each<[string, unknown, unknown, Refused]>([
    ['a port with a wrong name', createServer(), { prot: 8080 }, ['prot', 'allowed are port, host, requireReusePort']],
    ['a path', createServer(), { path: '/tmp/socket' }, ['path', 'allowed are port']],
    ['a backlog', createServer(), { port: 0, backlog: 5 }, ['backlog', 'allowed are port']],
    ['ipv6Only', createServer(), { ipv6Only: true }, ['ipv6Only', 'allowed are port']],
    ['what is no server', {}, {}, ['server', 'node:http', 'got an object']],
    ['nothing', undefined, {}, ['server', 'got undefined']],
  ])('%s', (_, server, options, refused) =>
    expectRefused(async () => {
      await using context = testContext()
      await context.listen(server as never, options as never)
    }, refused),
  )
})

describe('health() refuses', () => {
  const source: HealthSource = { ready: () => true, check: () => Promise.reject(new Error('never asked')) }

  test.each<[string, object, Refused]>([
    ['an unknown option', { path: '/x' }, ['path', 'allowed are livePath, readyPath, check']],
    ['a path without a slash', { livePath: 'healthz' }, ['livePath', "got 'healthz'", "'/healthz'"]],
    ['a path that is a number', { readyPath: 5 }, ['readyPath', 'got 5']],
    ['a check that is a number', { check: 5 }, ['check', 'got 5', 'true or false']],
    ['a check with a wrong name', { check: { timeout: 5 } }, ['timeout', 'allowed is timeoutMs']],
    ['a check without time', { check: { timeoutMs: 0 } }, ['timeoutMs', 'got 0']],
  ])('%s', (_, options, refused) => expectRefused(() => health(source, options), refused))

  test('what has no health', () => expectRefused(() => health({} as never), ['source', 'got an object']))
})

describe('Service.check()', () => {
  test.each<[unknown, Refused]>([
    [{ timeout: 5 }, ['timeout', 'allowed is timeoutMs']],
    [{ timeoutMs: '5' }, ['timeoutMs', "got '5'"]],
    [5, ['options', 'got 5']],
  ])('rejects for %j', async (options, refused) => {
    const service = createService(base)
    const checked = service.check(options as never)
    await expectRefused(() => checked, refused)
    await service.close()
  })

  test('rejects, and does not throw, where there is no pool yet', async () => {
    const service = createService({ ...base, url: new URL('file:///nowhere.js') })
    let checked: Promise<unknown> | undefined
    expect(() => (checked = service.check())).not.toThrow()
    await expect(checked).rejects.toMatchObject({ code: 'ERR_POOL_CLOSED' })
  })
})

describe('Service.on() refuses', () => {
  test.each<[string, unknown[], Refused]>([
    ['another event', ['evnt', () => {}], ['event', "got 'evnt'", "'event'"]],
    ['no listener', ['event'], ['listener', 'got undefined', 'function']],
    ['an unknown option', ['event', () => {}, { type: [] }], ['type', 'allowed are types']],
    ['types that are a text', ['event', () => {}, { types: 'millpond:open' }], ['types', "got 'millpond:open'"]],
    [
      'an unknown type',
      ['event', () => {}, { types: ['millpond:nope'] }],
      ['types', "'millpond:nope'", 'millpond:open'],
    ],
  ])('%s', (_, values, refused) => {
    const service = createService(base)
    return expectRefused(() => (service.on as (...all: unknown[]) => unknown)(...values), refused)
  })
})

describe('Service.run() refuses', () => {
  test.each<[object, Refused]>([
    [{ signal: 5 }, ['signal', 'got 5', 'AbortSignal']],
    [{ transfer: {} }, ['transfer', 'got an object', 'array']],
    [{ priority: '5' }, ['priority', "got '5'"]],
    [{ onProgress: 5 }, ['onProgress', 'got 5', 'function']],
  ])('%j', (options, refused) =>
    expectRefused(async () => {
      await createService({ ...base, tasks: { module: tasks } }).run('double', 1, options)
    }, refused),
  )
})
