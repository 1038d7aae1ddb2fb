import { setTimeout as sleep } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { TaskError, WorkerLostError } from 'millpond'
import { createService, serverModule, taskModule } from 'millpond/service'
import { TaskDeadlockError, TaskQueueFullError, TaskTimeoutError } from 'millpond/service'
import type { Service, ServiceOptions, TasksOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { holdWarnings, thrownBy, words } from './support.ts'

type Tasks = typeof import('./fixtures/tasks-more.mjs')

const module = taskModule<Tasks>(new URL('./fixtures/tasks-more.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

async function start(
  tasks: Partial<TasksOptions<Tasks>> = {},
  options: Partial<ServiceOptions<Tasks>> = {},
): Promise<Service<Tasks>> {
  const limit = { name: `tasks ${++names}`, connections: 6 }
  const service = createService<Tasks>({
    url: database.url,
    limit,
    signals: false,
    tasks: { module, ...tasks },
    ...options,
  })
  await service.start()
  return service
}

/** Go on; begun; aborted. */
function throwsAtProgress(): void {
  throw new RangeError('no more')
}

async function* numbers() {
  for (const n of [3, 2, 1]) yield n
}

async function drain(all: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of all);
}

function* breaks() {
  yield 1
  throw new Error('no more inputs')
}

function uncloneable(): number {
  return 1
}

describe('with one service', () => {
  let service: Service<Tasks>
  /** As somebody without types would call it. */
  let run: (name: string, input?: unknown, options?: object) => Promise<unknown>

  beforeAll(async () => {
    service = await start({ workers: 2 })
    run = service.run as typeof run
  })

  afterAll(() => service.close())

  test('Service.run() keeps of a class of the task’s own its name and its fields, errors in them and their causes', async () => {
    const error = (await thrownBy(service.run('throws', 'custom'))) as Error & { inner: unknown }
    expect(error).toMatchObject({ name: 'PaymentError', message: 'not enough', code: 'E_PAYMENT', amount: 7 })
    expect(error.stack).toContain('tasks-more.mjs')
    expect(error.inner).toBeInstanceOf(RangeError)
    expect(error.cause).toBeInstanceOf(TypeError)
    expect(error.cause).toMatchObject({ message: 'the reason' })
    expect(Object.keys(error)).not.toContain('message')
  })

  test('Service.run() keeps AggregateErrors with what is in them, and DOMExceptions', async () => {
    const aggregate = (await thrownBy(service.run('throws', 'aggregate'))) as AggregateError
    expect(aggregate).toBeInstanceOf(AggregateError)
    expect(aggregate.errors).toMatchObject([{ message: 'one' }, { name: 'PaymentError', code: 'E_PAYMENT' }])
    expect(aggregate.errors[0]).toBeInstanceOf(RangeError)
    const aborted = await thrownBy(service.run('throws', 'dom'))
    expect(aborted).toBeInstanceOf(DOMException)
    expect(aborted).toMatchObject({ name: 'AbortError', message: 'enough', code: 20 })
  })

  test('Service.run() rejects with something for each thing thrown, however odd', async () => {
    expect(await thrownBy(service.run('throws', 'circle'))).toMatchObject({ message: 'round' })
    expect(await thrownBy(service.run('throws', 'getter'))).toMatchObject({ code: 'ERR_TASK' })
    expect(await thrownBy(service.run('throws', 'plain'))).toMatchObject({ code: 'ERR_TASK' })
  })

  test('Service.run() keeps of errors in inputs and results what it keeps of thrown ones, through any thread', async () => {
    const error = Object.assign(new RangeError('no', { cause: new TaskError('report', 'why') }), { code: 'E_NO' })
    const [direct, nested] = (await Promise.all([
      run('echo', { error }),
      run('nests', { name: 'echo', input: { error } }),
    ])) as { error: Error }[]
    for (const back of [direct, nested]) {
      expect(back?.error).toBeInstanceOf(RangeError)
      expect(back?.error).toMatchObject({ message: 'no', code: 'E_NO', stack: error.stack })
      expect(back?.error.cause).toBeInstanceOf(TaskError)
    }
  })

  test.each([
    ['deep', 'its "rows[1].callback" is a function'],
    ['map', `its "get('a').symbol" is a symbol`],
    ['class', 'its "job" is of class WeakMap'],
    ['itself', 'it is a function'],
  ])('Service.run() names the member of a result that cannot cross: %s', async (kind, culprit) => {
    const error = await thrownBy(service.run('uncloneable', kind))
    expect(error).toBeInstanceOf(TaskError)
    expect((error as Error).message).toContain(culprit)
    expect((error as Error).cause).toMatchObject({ name: 'DataCloneError' })
  })

  test('Service.run() names the member of an input that cannot cross', async () => {
    const error = await thrownBy(run('echo', { list: [1, () => {}] }))
    expect(error).toMatchObject({ code: 'ERR_TASK', task: 'echo' })
    expect((error as Error).message).toContain('its "list[1]" is a function')
  })

  test('Service.run() makes Buffers of Buffers again, both ways, without what else is in their memory', async () => {
    const { small, list, again, map, bytes } = await service.run('buffers')
    expect(Buffer.isBuffer(small)).toBe(true)
    expect(small.toString()).toBe('small')
    expect(small.buffer.byteLength).toBe(5)
    expect(again).toBe(small)
    expect(Buffer.isBuffer(list[0])).toBe(true)
    expect(map.get('b')?.toString()).toBe('in a map')
    expect(Buffer.isBuffer(bytes)).toBe(false)
    const body = Buffer.from('a part of a slab')
    expect(body.buffer.byteLength).toBeGreaterThan(body.byteLength)
    expect(await service.run('takesBuffer', { body })).toEqual({ isBuffer: true, slab: 16, text: 'a part of a slab' })
  })

  test('Service.run() moves what it is told to, both ways', async () => {
    await using one = await start({ workers: 1 })
    const samples = await one.run('moves')
    expect(samples).toHaveLength(1_000)
    expect(await one.run('keptLength')).toBe(0)
    const bytes = new Uint8Array(1_000)
    expect(await one.run('byteLength', bytes, { transfer: [bytes.buffer] })).toBe(1_000)
    expect(bytes.byteLength).toBe(0)
    const { port } = await one.run('movesPort')
    const said = await new Promise((resolve) => port.once('message', resolve))
    port.close()
    expect(said).toBe('through the port')
  })

  test('Service.run() tells progress in order, to a loop and to a callback, and both end', async () => {
    const call = service.run('tells', 10)
    const told: unknown[] = []
    for await (const value of call.progress) told.push(value)
    expect(told).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(await call).toBe('told')
    const heard: unknown[] = []
    expect(await service.run('tells', 3, { onProgress: (value) => heard.push(value) })).toBe('told')
    expect(heard).toEqual([0, 1, 2])
  })

  test('Service.run() keeps 64 values of progress that nobody takes, and the last one', async () => {
    const call = service.run('tells', 100_000)
    await call
    const told: unknown[] = []
    for await (const value of call.progress) told.push(value)
    expect(told).toHaveLength(65)
    expect(told.slice(0, 3)).toEqual([0, 1, 2])
    expect(told.at(-1)).toBe(99_999)
  })

  test('Service.run() tells progress while the task runs', async () => {
    const demand = words(3)
    const call = service.run('tellsOnDemand', demand)
    const told: unknown[] = []
    Atomics.store(demand, 0, 1)
    for await (const value of call.progress) {
      told.push(value)
      Atomics.add(demand, 0, 1)
    }
    expect(told).toEqual([1, 2, 3, 4, 5])
    await call
  })

  test('Service.run() refuses progress that cannot cross, and rejects with what onProgress throws', async () => {
    expect(await thrownBy(service.run('tellsBadly'))).toMatchObject({
      code: 'ERR_TASK',
      message: expect.stringContaining('its "no" is a function'),
    })
    expect(await thrownBy(service.run('holdsBadly'))).toMatchObject({ code: 'ERR_TASK', task: 'holdsBadly' })
    await expect(service.run('tells', 3, { onProgress: throwsAtProgress })).rejects.toThrow('no more')
  })

  test.each([
    [{ signals: 1 }, 'signals'],
    [{ signal: {} }, 'signal'],
    [{ timeoutMs: -1 }, 'timeoutMs'],
    [{ transfer: 5 }, 'transfer'],
    [{ priority: NaN }, 'priority'],
    [{ onProgress: 5 }, 'onProgress'],
  ])('Service.run() refuses the option %j', async (options, option) => {
    expect(await thrownBy(run('whoami', undefined, options))).toMatchObject({ code: 'ERR_OPTION', option })
  })

  test('Service.run() rejects with a TaskTimeoutError that says where the time went, and the task is told', async () => {
    const word = words(3)
    const error = await thrownBy(service.run('gate', { word }, { timeoutMs: 100 }))
    expect(error).toBeInstanceOf(TaskTimeoutError)
    expect(error).toMatchObject({ code: 'ERR_TASK_TIMEOUT', task: 'gate', timeoutMs: 100, phase: 'run' })
    await expect.poll(() => word[2]).toBe(1)
  })

  test('a worker’s event loop runs between tasks', async () => {
    await using one = await start({ workers: 1 })
    await one.run('ticks')
    await expect.poll(() => one.run('ticks'), { timeout: 5_000 }).toBeGreaterThan(5)
  })

  test('every call is told by its own words, whatever was sent before it', async () => {
    await using alone = await start({ workers: 1, killAfterMs: Infinity })
    expect(await thrownBy(alone.run('echo', uncloneable))).toBeInstanceOf(TaskError)
    // More of them than one piece of memory has words for.
    for (let i = 0; i < 150; i++) {
      const late = alone.run('spins', { ms: 20_000, deaf: false }, { timeoutMs: 2 })
      expect(await thrownBy(late)).toBeInstanceOf(TaskTimeoutError)
      if (i % 50 === 0) expect(await thrownBy(alone.run('echo', uncloneable))).toBeInstanceOf(TaskError)
    }
    expect(await alone.run('double', 2)).toBe(4)
    expect(alone.stats().tasks['tasks']).toMatchObject({ workersLost: 0, refused: 4 })
  })

  test('a task may call another one, which is given up with it', async () => {
    expect(await service.run('nests', { name: 'double', input: 4 })).toBe(8)
    const word = words(3)
    const controller = new AbortController()
    const call = thrownBy(service.run('nests', { name: 'gate', input: { word } }, { signal: controller.signal }))
    await expect.poll(() => word[1]).toBe(1)
    controller.abort(new Error('enough'))
    expect(await call).toMatchObject({ message: 'enough' })
    await expect.poll(() => word[2]).toBe(1)
  })
})

describe('the queue', () => {
  test('Service.run() starts waiting calls by priority, then by age, and given up ones not at all', async () => {
    await using service = await start({ workers: 1 })
    const [word, order] = [words(3), words(8)]
    const first = service.run('gate', { word })
    const controller = new AbortController()
    const calls = [
      service.run('appends', { order, name: 1 }),
      service.run('appends', { order, name: 2 }, { priority: -1 }),
      service.run('appends', { order, name: 3 }, { priority: 5 }),
      service.run('appends', { order, name: 4 }),
    ]
    const never = thrownBy(service.run('appends', { order, name: 9 }, { priority: 9, signal: controller.signal }))
    const late = await thrownBy(service.run('whoami', undefined, { timeoutMs: 20 }))
    expect(late).toMatchObject({ code: 'ERR_TASK_TIMEOUT', phase: 'queue' })
    controller.abort(new Error('left'))
    expect(await never).toMatchObject({ message: 'left' })
    expect(service.stats().tasks['tasks']).toMatchObject({ running: 1, queued: 4, givenUp: 2 })
    Atomics.store(word, 0, 1)
    await Promise.all([first, ...calls])
    expect([...order]).toEqual([4, 3, 1, 4, 2, 0, 0, 0])
  })

  test('Service.run() refuses a call beyond maxQueue', async () => {
    await using service = await start({ workers: 1, maxQueue: 1 })
    const word = words(3)
    const calls = [service.run('gate', { word }), service.run('whoami')]
    const error = await thrownBy(service.run('whoami'))
    expect(error).toBeInstanceOf(TaskQueueFullError)
    expect(error).toMatchObject({ code: 'ERR_TASK_QUEUE_FULL', task: 'whoami', queued: 1, maxQueue: 1 })
    Atomics.store(word, 0, 1)
    await Promise.all(calls)
    expect(service.stats().tasks['tasks']).toMatchObject({ refused: 1, completed: 2, running: 0, queued: 0 })
  })

  test('Service.stats() has histograms of how long tasks waited and ran', async () => {
    await using service = await start({ workers: 1 })
    await Promise.all([service.run('spins', { ms: 60 }), service.run('spins', { ms: 20 })])
    const stats = service.stats().tasks['tasks']
    expect(stats).toMatchObject({ workers: 1, completed: 2, failed: 0, waits: { count: 2 }, runs: { count: 2 } })
    expect(stats?.waits.maxMs).toBeGreaterThan(50)
    expect(stats?.runs.totalMs).toBeGreaterThan(75)
    expect(service.stats().pool?.max).toBe(10)
  })
})

describe('tasks that wait for tasks', () => {
  test('a task that would wait for its own worker is refused', async () => {
    await using service = await start({ workers: 1 })
    const error = await thrownBy(service.run('nests', { name: 'whoami' }))
    expect(error).toBeInstanceOf(TaskDeadlockError)
    expect(error).toMatchObject({ code: 'ERR_TASK_DEADLOCK', task: 'whoami', caller: 'nests' })
    expect(await service.run('whoami')).toBeGreaterThan(0)
  })

  test('one level more than there are workers is refused, one less is not', async () => {
    await using service = await start({ workers: 3 })
    expect(await service.run('nests', { name: 'double', input: 1, depth: 1 })).toBe(2)
    expect(await thrownBy(service.run('nests', { name: 'double', input: 1, depth: 2 }))).toBeInstanceOf(
      TaskDeadlockError,
    )
  })

  test('of tasks that all wait for others, the last is refused and the rest get through', async () => {
    await using service = await start({ workers: 2 })
    const [a, b] = [words(3), words(3)]
    const first = thrownBy(service.run('nestsLater', { word: a }))
    const second = thrownBy(service.run('nestsLater', { word: b }))
    await expect.poll(() => [a[1], b[1]]).toEqual([1, 1])
    const others = Array.from({ length: 20 }, () => service.run('whoami'))
    Atomics.store(a, 0, 1)
    Atomics.store(b, 0, 1)
    const outcomes = await Promise.all([first, second])
    expect(outcomes.filter((one) => one instanceof TaskDeadlockError)).toHaveLength(1)
    expect(outcomes.filter((one) => one === undefined)).toHaveLength(1)
    await Promise.all(others)
  })

  test('what tasks ask for starts before all other calls', async () => {
    await using service = await start({ workers: 2 })
    const [hold, go, order] = [words(3), words(3), words(8)]
    const holder = service.run('gate', { word: hold })
    const nested = service.run('nestsLater', { word: go, name: 'appends', input: { order, name: 1 } })
    await expect.poll(() => [hold[1], go[1]]).toEqual([1, 1])
    const others = [2, 3, 4].map((name) => service.run('appends', { order, name }, { priority: 5 }))
    Atomics.store(go, 0, 1)
    await expect.poll(() => service.stats().tasks['tasks']?.queued).toBe(4)
    Atomics.store(hold, 0, 1)
    await Promise.all([holder, nested, ...others])
    expect(order[1]).toBe(1)
  })

  test('a nested call waits while somebody runs who waits for nobody', async () => {
    await using service = await start({ workers: 2 })
    const word = words(3)
    const holder = service.run('gate', { word })
    await expect.poll(() => word[1]).toBe(1)
    const nested = service.run('nests', { name: 'whoami' })
    await expect.poll(() => service.stats().tasks['tasks']?.queued).toBe(1)
    Atomics.store(word, 0, 1)
    expect(await nested).toBeGreaterThan(0)
    await holder
  })
})

describe('giving up', () => {
  test('a task that does not stop costs its worker after killAfterMs, and the next one gets another', async () => {
    const warned = holdWarnings()
    await using service = await start({ workers: 1, killAfterMs: 50 })
    const before = await service.run('whoami')
    const word = words(3)
    const error = await thrownBy(service.run('spins', { word }, { timeoutMs: 500 }))
    expect(error).toBeInstanceOf(TaskTimeoutError)
    expect(word[1]).toBe(1)
    expect(await service.run('whoami')).not.toBe(before)
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('"spins" went on for 50 ms'), 'MillpondWarning')
    expect(service.stats().tasks['tasks']).toMatchObject({ workersKilled: 1, workersLost: 1, workers: 1 })
  })

  test('a task that stops in time keeps its worker; with several at a time nobody is killed', async () => {
    await using service = await start({ workers: 1, killAfterMs: 5_000 })
    const before = await service.run('whoami')
    const word = words(3)
    const controller = new AbortController()
    const call = thrownBy(service.run('spins', { word, deaf: false }, { signal: controller.signal }))
    await expect.poll(() => word[1]).toBe(1)
    controller.abort()
    expect(await call).toMatchObject({ name: 'AbortError' })
    expect(await service.run('whoami')).toBe(before)
    expect(service.stats().tasks['tasks']).toMatchObject({ workersLost: 0 })
  })

  test('a call is given up once, by its signal or by the end of its caller’s thread', async () => {
    const service = await start({ workers: 2, killAfterMs: Infinity })
    const word = words(3)
    expect(await thrownBy(service.run('abandons', word))).toBeInstanceOf(WorkerLostError)
    Atomics.store(word, 0, 1)
    // All ports are closed then.
    await service.close()
    expect(service.stats().tasks['tasks']).toMatchObject({ givenUp: 1, completed: 1, lost: 1, failed: 0 })
  })

  test('what waits when the service has to close is refused', async () => {
    const service = await start({ workers: 1 }, { closeTimeoutMs: 100 })
    const word = words(3)
    const runs = thrownBy(service.run('gate', { word, deaf: true }))
    await expect.poll(() => word[1]).toBe(1)
    const waits = thrownBy(service.run('whoami'))
    await service.close()
    expect(await runs).toBeInstanceOf(WorkerLostError)
    expect(await waits).toMatchObject({ code: 'ERR_TASK', message: expect.stringContaining('was closed') })
    expect(service.stats().tasks['tasks']).toMatchObject({ lost: 1, refused: 1, failed: 0 })
  })

  test('what is thrown where nobody catches it costs the worker: its tasks reject, with that as the cause', async () => {
    await using service = await start({ workers: 1, concurrency: 2 })
    const word = words(3)
    const bystander = thrownBy(service.run('gate', { word }))
    const error = await thrownBy(service.run('throwsLater'))
    expect(error).toBeInstanceOf(WorkerLostError)
    expect((error as Error).cause).toMatchObject({ message: 'nobody catches this' })
    expect(await bystander).toBeInstanceOf(WorkerLostError)
    expect(await service.run('whoami')).toBeGreaterThan(0)
  })
})

describe('from a server', () => {
  const http = serverModule(new URL('./fixtures/tasks-server.mjs', import.meta.url))

  test('a server runs tasks: results, errors, progress, and a client who leaves', async () => {
    const word = words(3)
    await using service = await start({ workers: 2 }, { servers: { http: { module: http, data: word } } })
    const { port } = service.addresses('http')[0] as { port: number }
    const ask = async (path: string, init?: RequestInit): Promise<unknown> =>
      (await fetch(`http://127.0.0.1:${port}${path}`, init)).json()
    expect(await ask('/double?input=4')).toEqual({ value: 8, progress: [] })
    expect(await ask('/tells?input=3&progress')).toEqual({ value: 'told', progress: [0, 1, 2] })
    expect(await ask('/throws?input="custom"')).toMatchObject({ name: 'PaymentError', code: 'E_PAYMENT' })
    expect(await ask('/nothing')).toMatchObject({ code: 'ERR_TASK' })
    expect(await ask('/nests?input={"name":"double","input":3}')).toMatchObject({ value: 6 })
    const leaving = new AbortController()
    const left = thrownBy(ask('/gate?input=word', { signal: leaving.signal }))
    await expect.poll(() => word[1]).toBe(1)
    leaving.abort()
    await left
    await expect.poll(() => word[2]).toBe(1)
  })

  test('a server of a service without tasks is told so', async () => {
    await using service = createService({
      url: database.url,
      limit: { name: 'no tasks', connections: 3 },
      signals: false,
      servers: { http: { module: http } },
    })
    await service.start()
    const { port } = service.addresses('http')[0] as { port: number }
    const answer: unknown = await (await fetch(`http://127.0.0.1:${port}/double?input=4`)).json()
    expect(answer).toMatchObject({ code: 'ERR_TASK', message: expect.stringContaining('has no module of tasks') })
    expect(service.stats().tasks).toEqual({})
  })

  test('what a server has asked for is given up when its thread ends', async () => {
    holdWarnings()
    const word = words(3)
    await using service = await start({ workers: 1 }, { servers: { http: { module: http, data: word } } })
    const { port } = service.addresses('http')[0] as { port: number }
    const server = started.findLast((worker) => worker.threadId > 0)
    const left = thrownBy(fetch(`http://127.0.0.1:${port}/gate?input=word`))
    await expect.poll(() => word[1]).toBe(1)
    expect(server).toBeDefined()
    await server?.terminate()
    await left
    await expect.poll(() => word[2]).toBe(1)
  })
})

/** Every thread that this process has started. */
const started: Worker[] = []
process.on('worker', (worker) => started.push(worker))

describe('Service.runAll()', () => {
  test('Service.runAll() yields results in the order of the inputs, of any iterable', async () => {
    await using service = await start({ workers: 2 })
    const all: number[] = []
    for await (const value of service.runAll('double', [1, 2, 3, 4, 5])) all.push(value)
    expect(all).toEqual([2, 4, 6, 8, 10])
    const others: number[] = []
    for await (const value of service.runAll('double', numbers())) others.push(value)
    expect(others).toEqual([6, 4, 2])
  })

  test('Service.runAll() yields results as they come, if told so', async () => {
    await using service = await start({ workers: 2 })
    const word = words(3)
    const all = service.runAll('spins', [{ ms: 10_000, deaf: false, word }, { ms: 1 }, { ms: 1 }], {
      order: 'completion',
      concurrency: 3,
    })
    expect(await all.next()).toEqual({ done: false, value: 'finished' })
    expect(await all.next()).toEqual({ done: false, value: 'finished' })
    await all.return()
  })

  test('Service.runAll() takes no more inputs ahead than its concurrency', async () => {
    await using service = await start({ workers: 2 })
    let taken = 0
    function* inputs() {
      for (let i = 0; i < 50; i++) {
        taken++
        yield i
      }
    }
    let yielded = 0
    for await (const _ of service.runAll('double', inputs(), { concurrency: 3 })) {
      expect(taken - yielded).toBeLessThanOrEqual(4)
      yielded++
      if (yielded % 10 === 0) await sleep(5)
    }
    expect(taken).toBe(50)
    expect(yielded).toBe(50)
  })

  test('Service.runAll() gives up what runs when the loop is left, and closes its source', async () => {
    await using service = await start({ workers: 3 })
    const word = words(3)
    let closed = false
    function* inputs() {
      try {
        yield { word: Object.assign(words(3), { 0: 1 }) }
        for (;;) yield { word }
      } finally {
        closed = true
      }
    }
    for await (const value of service.runAll('gate', inputs(), { concurrency: 3 })) {
      expect(value).toBeGreaterThan(0)
      await expect.poll(() => word[1]).toBeGreaterThanOrEqual(2)
      break
    }
    expect(closed).toBe(true)
    await expect.poll(() => word[2]).toBe(word[1])
    expect(service.stats().tasks['tasks']?.queued).toBe(0)
  })

  test('Service.runAll() throws the first failure, of a task, of its source, or its signal’s reason', async () => {
    await using service = await start({ workers: 2 })
    await expect(drain(service.runAll('throws', ['custom', 'dom']))).rejects.toMatchObject({ name: 'PaymentError' })
    await expect(drain(service.runAll('double', breaks()))).rejects.toThrow('no more inputs')
    const word = words(3)
    const controller = new AbortController()
    const waiting = drain(service.runAll('gate', [{ word }, { word }], { signal: controller.signal }))
    const outcome = thrownBy(waiting)
    await expect.poll(() => word[1]).toBe(2)
    controller.abort(new Error('enough'))
    expect(await outcome).toMatchObject({ message: 'enough' })
    await expect.poll(() => word[2]).toBe(2)
    await expect(
      drain(service.runAll('double', [1], { signal: AbortSignal.abort(new Error('before')) })),
    ).rejects.toThrow('before')
    expect(() => service.runAll('double', 5 as never)).toThrow(expect.objectContaining({ option: 'inputs' }))
    expect(() => service.runAll('double', [], { concurrency: 0 })).toThrow(
      expect.objectContaining({ option: 'concurrency' }),
    )
  })

  test.each([{ transfer: [] }, { onProgress: () => {} }, { concurency: 2 }])(
    'Service.runAll() refuses %j',
    async (options) => {
      await using service = await start({ workers: 1 })
      const [option = ''] = Object.keys(options)
      expect(() => service.runAll('double', [1], options as {})).toThrow(
        expect.objectContaining({ code: 'ERR_OPTION', option, message: expect.stringContaining('of runAll()') }),
      )
    },
  )
})
