import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { setEnvironmentData } from 'node:worker_threads'
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test } from 'vitest'
import { PoolError, WorkerLostError } from 'millpond'
import { createService, taskModule } from 'millpond/service'
import type { Service, TasksOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase, until } from '../support/database.ts'
import { holdWarnings, thrownBy } from './support.ts'

type Tasks = typeof import('./fixtures/tasks-crashing.mjs')

const module = taskModule<Tasks>(new URL('./fixtures/tasks-crashing.mjs', import.meta.url))
const [sound, crashes, hangs] = [0, 1, 2]

let database: TestDatabase
let names = 0
/** What the module does; how often it was loaded; how many of its tasks compute for ever. */
let words: Int32Array

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

beforeEach(() => {
  words = new Int32Array(new SharedArrayBuffer(12))
  setEnvironmentData('crashing tasks', words)
  holdWarnings()
})

function create(tasks: Partial<TasksOptions<Tasks>> = {}): Service<Tasks> {
  const limit = { name: `crashing ${++names}`, connections: 3 }
  return createService<Tasks>({
    url: database.url,
    limit,
    signals: false,
    closeTimeoutMs: 1_000,
    tasks: { module, workers: 1, ...tasks },
  })
}

test('a worker that is lost is replaced at once', async () => {
  await using service = create()
  await service.start()
  for (let round = 0; round < 4; round++) {
    const before = await service.run('whoami')
    expect(await thrownBy(service.run('dies'))).toBeInstanceOf(WorkerLostError)
    expect(service.stats().tasks['tasks']).toMatchObject({ workers: 1, workersRestarting: 0, workersLost: round + 1 })
    expect(service.ready()).toBe(true)
    expect(await service.run('whoami')).not.toBe(before)
  }
})

test('what a thread has replied just before it ended is its reply', async () => {
  await using service = create()
  await service.start()
  for (let round = 0; round < 5; round++) {
    const reply = service.run('leaves')
    // Its reply and its end are both there when the event loop goes on.
    Atomics.wait(words, 2, 0, 200)
    expect(await reply).toBe('last words')
    await until(() => service.stats().tasks['tasks']?.workersLost === round + 1)
  }
  expect(service.stats().tasks['tasks']).toMatchObject({ completed: 5, lost: 0 })
})

test('a worker that was ended for its task is replaced at once', async () => {
  await using service = create({ killAfterMs: 10 })
  await service.start()
  for (let round = 1; round <= 3; round++) {
    const controller = new AbortController()
    const call = thrownBy(service.run('spins', undefined, { signal: controller.signal }))
    await until(() => Atomics.load(words, 2) === round, 'the task to begin')
    controller.abort()
    expect(await call).toMatchObject({ name: 'AbortError' })
    await until(() => service.stats().tasks['tasks']?.workersKilled === round, 'the end of its thread')
    await until(() => service.stats().tasks['tasks']?.lost === round, 'the end of the task')
    expect(service.stats().tasks['tasks']).toMatchObject({ workers: 1, workersRestarting: 0, workersLost: round })
  }
})

test('workers that keep ending before they are of any use are started again after pauses', async () => {
  await using service = create()
  const stats = () => service.stats().tasks['tasks']
  await service.start()
  Atomics.store(words, 0, crashes)
  expect(await thrownBy(service.run('dies'))).toBeInstanceOf(WorkerLostError)
  await until(() => Atomics.load(words, 1) === 2, 'a second thread')
  const startedAt = performance.now()
  await until(() => Atomics.load(words, 1) >= 6, 'a sixth thread')
  // 50, 100, 200 and 400 ms, each less 10 %.
  expect(performance.now() - startedAt).toBeGreaterThan(600)
  // The next one is due in 800 ms.
  await until(() => stats()?.workers === 0, 'a pause')
  expect(stats()).toMatchObject({ workersRestarting: 1 })
  expect(service.ready()).toBe(false)
  Atomics.store(words, 0, sound)
  const call = service.run('whoami')
  // It waits for a thread, and does not run on one that is not there.
  expect(stats()).toMatchObject({ queued: 1, running: 0 })
  expect(await call).toBeGreaterThan(0)
  expect(stats()).toMatchObject({ workers: 1, workersRestarting: 0, queued: 0 })
  expect(stats()?.waits.maxMs).toBeGreaterThan(50)
  expect(service.ready()).toBe(true)
})

test('start() rejects if the module of tasks does not load in time', async () => {
  Atomics.store(words, 0, hangs)
  const service = create({ startTimeoutMs: 300 })
  const error = await thrownBy(service.start())
  expect(error).toBeInstanceOf(PoolError)
  expect(error).toMatchObject({
    code: 'ERR_TASK_START_TIMEOUT',
    message: expect.stringContaining('tasks-crashing.mjs was not loaded within 300 ms'),
  })
  expect(service.stats().phase).toBe('closed')
})

test('a thread that takes the place of another one has to load the module in time, too', async () => {
  // Enough for one that does, on a busy machine.
  await using service = create({ startTimeoutMs: 3_000 })
  await service.start()
  Atomics.store(words, 0, hangs)
  expect(await thrownBy(service.run('dies'))).toBeInstanceOf(WorkerLostError)
  await until(() => Atomics.load(words, 1) === 2, 'a second thread')
  Atomics.store(words, 0, sound)
  expect(await service.run('whoami')).toBeGreaterThan(0)
  expect(Atomics.load(words, 1)).toBe(3)
})

test('a call that waits for a worker that pauses keeps the process alive', async () => {
  const script = fileURLToPath(new URL('./fixtures/tasks-alone.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, database.url], { stdio: ['ignore', 'pipe', 'ignore'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
  expect(await once(child, 'close')).toEqual([0, null])
  expect(said).toBe('answered\n')
})

test('stats() counts each call once, by what became of it', async () => {
  const service = create()
  await service.start()
  await service.run('whoami')
  await thrownBy(service.run('fails'))
  await thrownBy(service.run('dies'))
  expect(service.stats().tasks['tasks']).toMatchObject({ completed: 1, failed: 1, lost: 1, refused: 0 })
  await service.run('whoami')
  await service.close()
  await thrownBy(service.run('whoami'))
  expect(service.stats().tasks['tasks']).toMatchObject({ completed: 2, failed: 1, lost: 1, refused: 0 })
})

test.each([{ startTimeoutMs: 0 }, { startTimeoutMs: 'x' as unknown as number }])(
  'createService() refuses %j',
  (tasks) => {
    expect(() => create(tasks)).toThrow(expect.objectContaining({ code: 'ERR_OPTION', option: 'tasks.startTimeoutMs' }))
  },
)
