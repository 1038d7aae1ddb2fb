import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { AcquireTimeoutError, TaskError } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { PostgresPool } from 'millpond/postgres'
import { TaskTimeoutError, health } from 'millpond/service'
import type { ServerContext, TaskContext } from 'millpond/service'
import { testContext } from 'millpond/testing'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

let database: TestDatabase
let pool: PostgresPool

beforeAll(async () => {
  database = await createDatabase()
  pool = createPool(database.url, { max: 2 })
  await pool.sql`create table notes (text text)`
})

afterAll(async () => {
  await pool.close()
  await database.drop()
})

afterEach(() => {
  vi.restoreAllMocks()
})

class Money {
  readonly cents: number
  constructor(cents: number) {
    this.cents = cents
  }
  get euros(): number {
    return this.cents / 100
  }
}

const computes = (n: number, { pool: unused }: TaskContext): number => (unused ? 2 * n : 0)

const count = (_: undefined, { progress, throwIfAborted }: TaskContext): void => {
  for (let i = 0; ; i++) {
    throwIfAborted()
    progress(i)
  }
}

const write = async (text: string, task: TaskContext): Promise<void> => {
  await task.pool.sql`insert into notes (text) values (${text})`
}

const failing = (): never => {
  throw new TypeError('it does not want to start')
}

const ask = async (port: number, path = '/'): Promise<string> => (await fetch(`http://127.0.0.1:${port}${path}`)).text()

const thrown = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error)

describe('testContext() for a task', () => {
  test('testContext() records what is told, as copies that a caller would get', () => {
    const context = testContext()
    const told = { done: 1, bytes: Buffer.from('ab'), money: new Money(5) }
    context.progress(told)
    told.done = 2
    context.progress('last')
    expect(context.progressed).toEqual([{ done: 1, bytes: Buffer.from('ab'), money: { cents: 5 } }, 'last'])
    const [first] = context.progressed as [typeof told]
    expect([Buffer.isBuffer(first.bytes), first.money instanceof Money]).toEqual([true, false])
  })

  test('testContext().progress() throws for what cannot cross threads', () => {
    const context = testContext()
    expect(() => context.progress({ rows: [{ callback: () => {} }] })).toThrow(TaskError)
    expect(() => context.progress({ rows: [{ callback: () => {} }] })).toThrow('its "rows[0].callback" is a function')
    expect(context.progressed).toEqual([])
  })

  test('testContext().abort() is seen by all that a task can look at', async () => {
    const context = testContext()
    expect([context.aborted, context.signal.aborted]).toEqual([false, false])
    context.throwIfAborted()
    const reason = new Error('the client has left')
    const waiting = thrown(new Promise((_, reject) => context.signal.addEventListener('abort', () => reject(reason))))
    context.abort(reason)
    expect([context.aborted, context.signal.aborted, context.signal.reason]).toEqual([true, true, reason])
    expect(() => context.throwIfAborted()).toThrow(reason)
    expect(await waiting).toBe(reason)
    const other = testContext()
    other.abort()
    expect(() => other.throwIfAborted()).toThrow(expect.objectContaining({ name: 'AbortError' }))
  })

  test('testContext() is aborted by a signal, and in the middle of a loop that never awaits', () => {
    const controller = new AbortController()
    const given = testContext({ signal: controller.signal })
    controller.abort('over')
    expect(given.signal.reason).toBe('over')

    const context = testContext({ onProgress: (value) => value === 3 && context.abort() })
    expect(() => count(undefined, context)).toThrow('aborted')
    expect(context.progressed).toEqual([0, 1, 2, 3])
  })

  test('testContext() has the pool of the test; what it runs inside a transaction is part of that', async () => {
    const context = testContext({ pool, tasks: { write } })
    expect(context.pool).toBe(pool)
    const inside = await pool.transaction(
      async () => {
        await write('directly', context)
        await context.run('write', 'through run')
        return await pool.sql`select text from notes`
      },
      { rollback: true },
    )
    expect(inside.map(({ text }) => text)).toEqual(['directly', 'through run'])
    expect(await pool.sql`select text from notes`).toHaveLength(0)
  })

  test('testContext() without a pool throws where one is used, and not before', async () => {
    const context = testContext()
    expect(computes(2, context)).toBe(4)
    // As whoever has it from a promise does.
    expect(await Promise.resolve(context.pool)).toBe(context.pool)
    expect(() => context.pool.sql`select 1`).toThrow('Cannot use "pool.sql"')
    await expect(context.check()).rejects.toMatchObject({ code: 'ERR_OPTION' })
  })

  test('testContext() refuses options that it does not know', () => {
    const make = testContext as (options: object) => unknown
    expect(() => make({ task: {} })).toThrow(expect.objectContaining({ code: 'ERR_OPTION', option: 'task' }))
  })
})

describe('testContext().run()', () => {
  const tasks = {
    add: ({ a, b }: { a: number; b: number }) => a + b,
    money: (cents: number) => ({ money: new Money(cents), bytes: Buffer.from('pdf') }),
    uncloneable: () => ({ callback: () => {} }),
    fails: () => {
      throw Object.assign(new RangeError('it does not fit'), { code: 'E_FIT' })
    },
    busy: async (_: undefined, { pool: own }: TaskContext) => {
      const held = [await own.acquire(), await own.acquire()]
      try {
        await own.acquire({ timeoutMs: 10 })
      } finally {
        for (const lease of held) await lease.release()
      }
    },
    forgets: async (_: undefined, { pool: own }: TaskContext) => {
      await own.acquire()
    },
    misleads: (_: undefined, { run }: TaskContext<{ add: (input: { a: number; b: number }) => number }>) =>
      run('add', { a: 1, b: 1 }, { signal: 5 as never }),
    nested: async (n: number, { run }: TaskContext<{ add: (input: { a: number; b: number }) => number }>) =>
      run('add', { a: n, b: 1 }),
    waits: async (_: undefined, { signal }: TaskContext) =>
      new Promise<string>((resolve) => signal.addEventListener('abort', () => resolve('seen'))),
    counts: (to: number, { progress }: TaskContext) => {
      for (let i = 0; i < to; i++) progress(i)
      return to
    },
    takes: (bytes: Uint8Array<ArrayBuffer>, { transfer }: TaskContext) => transfer(bytes, [bytes.buffer]),
    limit: 5,
    default: () => 'none',
  }

  test('testContext().run() copies inputs, results and errors as they are copied between threads', async () => {
    const { run } = testContext({ tasks })
    expect(await run('add', { a: 1, b: 2 })).toBe(3)
    const { money, bytes } = await run('money', 5)
    expect([money instanceof Money, money.cents, Buffer.isBuffer(bytes)]).toEqual([false, 5, true])
    const error = await thrown(run('fails'))
    expect(error).toBeInstanceOf(RangeError)
    expect(error).toMatchObject({ code: 'E_FIT', message: 'it does not fit' })
    const uncloneable = await thrown(run('uncloneable'))
    expect(uncloneable).toMatchObject({ code: 'ERR_TASK', message: expect.stringContaining('its "callback"') })
    const input = { a: 1, b: (() => 2) as unknown as number }
    expect(await thrown(run('add', input))).toMatchObject({ code: 'ERR_TASK', task: 'add' })
  })

  test('testContext().run() refuses a signal that is none, also inside of a task', async () => {
    const { run } = testContext({ tasks })
    const refused = { code: 'ERR_OPTION', option: 'signal' }
    expect(await thrown(run('add', { a: 1, b: 2 }, { signal: 5 as never }))).toMatchObject(refused)
    expect(await thrown(run('misleads'))).toMatchObject(refused)
  })

  test('testContext().run() moves what is to be moved', async () => {
    const { run } = testContext({ tasks })
    const bytes = new Uint8Array([1, 2])
    expect(await run('takes', bytes, { transfer: [bytes.buffer] })).toEqual(new Uint8Array([1, 2]))
    expect(bytes.byteLength).toBe(0)
  })

  test('testContext().run() says which tasks there are', async () => {
    const run = testContext({ tasks }).run as unknown as (name: string) => Promise<unknown>
    for (const name of ['nothing', 'limit', 'default', 'toString']) {
      const error = await thrown(run(name))
      expect(error).toMatchObject({ code: 'ERR_TASK', task: name, message: expect.stringContaining('exports add') })
    }
    const none = testContext().run as unknown as (name: string) => Promise<unknown>
    await expect(none('add')).rejects.toThrow('give the context its tasks')
  })

  test('testContext().run() lets tasks run others, and gives them the pool', async () => {
    const { run } = testContext({ pool, tasks })
    expect(await run('nested', 1)).toBe(2)
    expect(await thrown(run('busy'))).toBeInstanceOf(AcquireTimeoutError)
    expect(pool.stats().leased).toBe(0)
  })

  test('testContext().run() takes a forgotten lease away and warns of it, as a worker does', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    await testContext({ pool, tasks }).run('forgets')
    expect(warned).toHaveBeenCalledWith(
      expect.stringContaining('"forgets" has ended without releasing'),
      'MillpondWarning',
    )
    await until(() => pool.stats().leased === 0)
  })

  test('testContext().run() has progress, signals and deadlines', async () => {
    const context = testContext({ tasks })
    const running = context.run('counts', 3)
    const parts: unknown[] = []
    for await (const part of running.progress) parts.push(part)
    expect([parts, await running]).toEqual([[0, 1, 2], 3])
    const late = await thrown(context.run('waits', undefined, { timeoutMs: 20 }))
    expect(late).toBeInstanceOf(TaskTimeoutError)
    expect(late).toMatchObject({ phase: 'run' })
    const reason = new Error('enough')
    expect(await thrown(context.run('waits', undefined, { signal: AbortSignal.abort(reason) }))).toBe(reason)
    const given = thrown(context.run('waits'))
    context.abort(reason)
    expect(await given).toBe(reason)
    expect(await thrown(context.run('add', { a: 1, b: 2 }))).toBe(reason)
  })
})

describe('testContext() for a server', () => {
  interface Tasks {
    double: (n: number) => number
  }
  const disposed: string[] = []
  async function start(context: ServerContext<Tasks>): Promise<AsyncDisposable> {
    const { listen, run, pool: own, data, index } = context
    const probe = health(context)
    const server = createServer((req, response) => {
      if (probe(req, response)) return
      const answer = async (): Promise<unknown> => {
        if (req.url === '/double') return run('double', 21)
        if (req.url === '/note') return own.sql`insert into notes (text) values ('from the server')`
        if (req.url === '/slow') return own.sql`select pg_sleep(0.3)`.then(() => 'slow')
        return { data, index }
      }
      answer().then(
        (value) => response.end(JSON.stringify(value)),
        (error: Error) => response.writeHead(500).end(error.message),
      )
    })
    // A port and an address that a test must not take.
    await listen(server, { port: 80, host: '0.0.0.0', requireReusePort: true })
    return {
      async [Symbol.asyncDispose]() {
        disposed.push(context.signal.aborted ? 'stopping' : 'not stopping')
      },
    }
  }
  const tasks: Tasks = { double: (n) => 2 * n }

  test('testContext().start() starts a server that listens on a free port of this machine only', async () => {
    await using first = testContext({ pool, tasks, data: { title: 'a' }, index: 3 })
    await using second = testContext({ pool, tasks })
    await first.start(start)
    await second.start(start)
    expect(first.addresses).toEqual([expect.objectContaining({ address: '127.0.0.1', port: first.port })])
    expect(second.port).not.toBe(first.port)
    expect(JSON.parse(await ask(first.port))).toEqual({ data: { title: 'a' }, index: 3 })
    expect(await ask(second.port, '/double')).toBe('42')
    expect([await ask(first.port, '/readyz'), first.ready()]).toEqual(['{"ready":true}', true])
    expect((await first.check()).durationMs).toBeGreaterThan(0)
  })

  test('testContext() is disposed of: what was accepted is answered, then what start returned is disposed of', async () => {
    disposed.length = 0
    const context = testContext({ pool, tasks })
    await context.start(start)
    const { port } = context
    const slow = ask(port, '/slow')
    await database.toRun('pg_sleep(0.3)')
    await context[Symbol.asyncDispose]()
    expect([await slow, disposed, context.signal.aborted, context.ready()]).toEqual([
      '"slow"',
      ['stopping'],
      true,
      false,
    ])
    await expect(ask(port)).rejects.toThrow('fetch failed')
    await context[Symbol.asyncDispose]()
    expect(disposed).toHaveLength(1)
    expect((await pool.sql`select 1 as one`)[0]?.['one']).toBe(1)
  })

  test('testContext().start() inside a transaction: what the server does for its clients is part of it', async () => {
    const inside = await pool.transaction(
      async () => {
        await using context = testContext({ pool, tasks })
        await context.start(start)
        await Promise.all([ask(context.port, '/note'), ask(context.port, '/note')])
        return await pool.sql`select from notes`
      },
      { rollback: true },
    )
    expect(inside).toHaveLength(2)
    expect(await pool.sql`select from notes`).toHaveLength(0)
  })

  test('testContext().start() passes on what start throws, and what it returns', async () => {
    await using context = testContext()
    await expect(context.start(failing)).rejects.toThrow('it does not want to start')
    expect(await context.start(() => 'nothing to dispose of')).toBe('nothing to dispose of')
    expect(() => context.port).toThrow(expect.objectContaining({ code: 'ERR_NOT_LISTENING' }))
    context.announce({ port: 7 })
    expect([context.port, context.addresses]).toEqual([7, [{ port: 7 }]])
  })

  test('testContext() rejects with what the disposal of a server throws, when all have been disposed of', async () => {
    const context = testContext()
    const ended: number[] = []
    const server = (n: number, error?: Error) => () => ({
      [Symbol.dispose]() {
        ended.push(n)
        if (error) throw error
      },
    })
    await context.start(server(1, new Error('it does not want to go')))
    await context.start(server(2))
    await expect(context[Symbol.asyncDispose]()).rejects.toThrow('it does not want to go')
    expect(ended).toEqual([1, 2])
  })

  test('testContext() copies data as on its way to a thread, and refuses what cannot go', () => {
    const data = { routes: ['/'] }
    const context = testContext({ data })
    expect(context.data).toEqual(data)
    expect(context.data).not.toBe(data)
    expect(() => testContext({ data: { route: () => {} } })).toThrow('data cannot cross threads: its "route"')
  })
})

test('millpond/testing loads nothing but Node’s modules and its own', () => {
  const seen = new Set<string>()
  const strangers: string[] = []
  const walk = (file: string): void => {
    if (seen.has(file)) return
    seen.add(file)
    const text = readFileSync(file, 'utf8')
    for (const [, specifier = ''] of text.matchAll(/^(?:import|export)\b(?:[^;]*?\bfrom)? '([^']+)'/gm)) {
      if (specifier.startsWith('.')) walk(join(dirname(file), specifier))
      else if (!specifier.startsWith('node:')) strangers.push(`${file}: ${specifier}`)
    }
  }
  walk(fileURLToPath(import.meta.resolve('millpond/testing')))
  expect(seen.size).toBeGreaterThan(15)
  expect(strangers).toEqual([])
})
