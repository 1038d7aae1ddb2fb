import { createSecretKey } from 'node:crypto'
import { inspect } from 'node:util'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import { TaskError } from 'millpond'
import type { PostgresPool } from 'millpond/postgres'
import type { TaskContext } from 'millpond/service'
import { testContext } from 'millpond/testing'
import { createCallWords } from '../../src/service/abort.ts'
import { callTask } from '../../src/service/call.ts'
import { perform } from '../../src/service/perform.ts'
import { runAll } from '../../src/service/run-all.ts'
import type { FromThread } from '../../src/service/thread.ts'
import { until } from '../support/database.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

const thrown = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error)

class PayError extends Error {
  override name = 'PayError'
  code = 'E_PAY'
}

class Doc {
  readonly body: Buffer
  constructor(body: Buffer) {
    this.body = body
  }
}

const throwsOnSight = (): Error =>
  Object.defineProperty(new Error('no'), 'detail', {
    enumerable: true,
    get() {
      throw new Error('not for you')
    },
  })

const fails = async (word: Int32Array, { progress }: TaskContext): Promise<void> => {
  progress(1)
  await until(() => Atomics.load(word, 0) === 1)
  throw new RangeError('boom')
}
const tellsMany = async (last: object, { progress }: TaskContext): Promise<string> => {
  for (let i = 0; i < 64; i++) progress(i)
  progress(last)
  Object.assign(last, { text: 'later' })
  return 'done'
}
const many = async (_: undefined, { run }: TaskContext<{ tellsMany: typeof tellsMany }>): Promise<number> =>
  (await Promise.all(Array.from({ length: 12 }, () => run('tellsMany', { text: '' })))).length
const warned = (): string[] => {
  const heard: string[] = []
  vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void heard.push(String(warning)))
  return heard
}
const held = (_: undefined, { progress }: TaskContext): string => {
  for (let i = 0; i < 64; i++) progress(i)
  progress(() => {})
  return 'done'
}

const tell = (_: undefined, { progress }: TaskContext): void => {
  for (let i = 0; i < 65; i++) progress(i)
}

const neverAnswers = (): { reply: Promise<never>; giveUp(): void } => ({ reply: new Promise(() => {}), giveUp() {} })

const echoes = async (input: unknown): Promise<unknown> => input

const runsNoOther = (): never => {
  throw new Error('it runs no other')
}

describe('what crosses', () => {
  const tasks = {
    echo: (input: unknown) => input,
    describes: (error: PayError) => [error.name, error.code, error.message, error instanceof Error],
    settles: () => Promise.allSettled([Promise.reject(new PayError('no'))]),
    tells: (value: unknown, { progress }: TaskContext) => progress(value),
  }
  const echo = async <T>(value: T): Promise<T> => (await testContext({ tasks }).run('echo', value)) as T

  test('errors in results, inputs and progress keep what thrown ones keep', async () => {
    const { run } = testContext({ tasks })
    const error = new PayError('not enough', { cause: new RangeError('inside', { cause: 5 }) })
    const { inner } = await echo({ inner: error })
    expect(inner).not.toBe(error)
    expect(inner).toBeInstanceOf(Error)
    expect(inner).toMatchObject({ name: 'PayError', code: 'E_PAY', message: 'not enough', stack: error.stack })
    expect(inner.cause).toBeInstanceOf(RangeError)
    expect(inner.cause).toMatchObject({ message: 'inside', cause: 5 })
    expect(await run('describes', error)).toEqual(['PayError', 'E_PAY', 'not enough', true])
    expect(await run('settles')).toMatchObject([{ status: 'rejected', reason: { name: 'PayError', code: 'E_PAY' } }])
    const call = run('tells', { error })
    for await (const told of call.progress) expect(told).toMatchObject({ error: { name: 'PayError', code: 'E_PAY' } })
    await call
  })

  test('errors of JavaScript’s and millpond’s classes are instances of them again, wherever they are', async () => {
    const odd = { anything: () => {} }
    const [range, aggregate, dom, task, fields] = await echo([
      new RangeError('r'),
      new AggregateError([new PayError('one')], 'all'),
      new DOMException('enough', 'AbortError'),
      new TaskError('report', 'no'),
      Object.assign(new TypeError('odd', { cause: odd }), { size: 7, odd }),
    ] as const)
    expect(range).toBeInstanceOf(RangeError)
    expect(aggregate).toBeInstanceOf(AggregateError)
    expect(aggregate.errors).toMatchObject([{ code: 'E_PAY' }])
    expect(dom).toBeInstanceOf(DOMException)
    expect([dom.name, dom.message, dom.code]).toEqual(['AbortError', 'enough', 20])
    expect(task).toBeInstanceOf(TaskError)
    expect(task).toMatchObject({ code: 'ERR_TASK', task: 'report' })
    // As far as they can cross.
    expect(fields).toMatchObject({ message: 'odd', size: 7 })
    expect(fields).not.toHaveProperty('odd')
    expect(await echo(new RangeError('by itself'))).toBeInstanceOf(RangeError)
    expect(await echo({ odd: throwsOnSight() })).toMatchObject({ odd: expect.any(Error) })
  })

  test('shared references and circles stay what they are', async () => {
    const error = new PayError('shared')
    const body = Buffer.from('shared')
    const ring: Record<string, unknown> = { error, body, apart: { date: new Date(5), by: new Map([['x', /x/g]]) } }
    ring['self'] = ring
    ring['list'] = [error, body, new Set([error]), new Map<unknown, unknown>([[error, ring]])]
    const back = await echo(ring)
    const [one, bytes, set, map] = back['list'] as [unknown, unknown, Set<unknown>, Map<unknown, unknown>]
    expect(back['self']).toBe(back)
    expect([one, [...set][0], [...map.keys()][0]]).toEqual([back['error'], back['error'], back['error']])
    expect([one === back['error'], set.has(one), map.get(one) === back, bytes === back['body']]).toEqual([
      true,
      true,
      true,
      true,
    ])
    expect(back['apart']).toEqual(ring['apart'])
    expect(back['error']).toMatchObject({ code: 'E_PAY' })
  })

  test('Buffers and errors in instances of classes arrive as they do elsewhere', async () => {
    const small = Buffer.from('small')
    const doc = new Doc(small)
    expect(small.buffer.byteLength).toBeGreaterThan(5)
    const back = await echo({ doc, again: doc, list: [Object.assign(new Doc(small), { error: new PayError('no') })] })
    expect(Buffer.isBuffer(back.doc.body)).toBe(true)
    expect(back.doc.body.buffer.byteLength).toBe(5)
    expect(back.doc.body.toString()).toBe('small')
    expect(back.again).toBe(back.doc)
    expect(back.list[0]?.body).toBe(back.doc.body)
    expect(back.list[0]).toMatchObject({ error: { code: 'E_PAY' } })
    expect(Object.getPrototypeOf(back.doc)).toBe(Object.prototype)
    // What has more in it than it shows is not taken for plain data.
    const { key, blob } = await echo({
      key: createSecretKey(small),
      blob: new Blob(['b']),
      small,
      error: new Error('e'),
    })
    expect([key.type, await blob.text()]).toEqual(['secret', 'b'])
  })
})

describe('a caller that is slow, or does not listen', () => {
  const tasks = { fails, tellsMany, held, many }

  test('a task that fails while the reader of its progress is busy rejects its call, and nothing else', async () => {
    const unhandled: unknown[] = []
    const note = (reason: unknown): void => void unhandled.push(reason)
    process.on('unhandledRejection', note)
    onTestFinished(() => void process.off('unhandledRejection', note))
    const word = new Int32Array(new SharedArrayBuffer(4))
    const call = testContext({ tasks }).run('fails', word)
    const told: unknown[] = []
    for await (const value of call.progress) {
      told.push(value)
      Atomics.store(word, 0, 1)
      // When that has come, it has been decided whether the rejection is one that nobody handles.
      await until(() => inspect(call).includes('<rejected>'))
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(told).toEqual([1])
    await expect(call).rejects.toThrow('boom')
    expect(unhandled).toEqual([])
  })

  test('progress that is held back is what it was when it was told', async () => {
    const call = testContext({ tasks }).run('tellsMany', { text: 'then' })
    expect(await call).toBe('done')
    const told: unknown[] = []
    for await (const value of call.progress) told.push(value)
    expect(told.at(-1)).toEqual({ text: 'then' })
  })

  test('progress that is held back and cannot cross is refused where it is told', async () => {
    expect(await thrown(testContext({ tasks }).run('held'))).toMatchObject({
      code: 'ERR_TASK',
      task: 'held',
      message: expect.stringContaining('it is a function'),
    })
  })

  test('what is held back and cannot be sent in the end fails the task, and not who runs it', async () => {
    const said: FromThread[] = []
    const say = (message: FromThread): void => {
      if (message.type === 'progress' && said.length === 64) throw new Error('the port is broken')
      said.push(message)
    }
    const house = {
      thread: -1,
      pool: Promise.resolve({} as PostgresPool),
      tasks: Promise.resolve({ tell }),
      module: 'm',
      sender: runsNoOther,
      say,
    }
    await perform(
      { id: 1, task: 'tell', exported: 'tell', input: { value: undefined }, words: createCallWords() },
      house,
    )
    expect(said.at(-1)).toMatchObject({ type: 'reply', reply: { ok: false, error: { message: 'the port is broken' } } })
  })

  test('many calls with one signal, and of one task, are nothing to warn of', async () => {
    const heard = warned()
    const controller = new AbortController()
    for (let i = 0; i < 12; i++) void thrown(callTask(neverAnswers, 'x', i, { signal: controller.signal }))
    expect(await testContext({ tasks }).run('many')).toBe(12)
    const { signal } = new AbortController()
    const all = Array.from({ length: 12 }, () => runAll(echoes, [1, 2], { signal, concurrency: 1 }))
    // They listen to it until they are read to the end, or left.
    await Promise.all(all.map((results) => results.next()))
    await Promise.all(all.map((results) => results.return()))
    // Node warns in a later tick.
    await new Promise((resolve) => setImmediate(resolve))
    expect(heard).toEqual([])
  })
})
