import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createService, serverModule } from 'millpond/service'
import type { ServerThreadStats, Service, ServiceEvent, ServiceOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { ask } from './fixtures/load.mjs'
import { portOf, warnings, words } from './support.ts'

const module = serverModule(new URL('./fixtures/listener.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(options: Partial<ServiceOptions<unknown>>): Service<unknown> {
  const limit = { name: `reloads ${++names}`, connections: 6 }
  return createService({ url: database.url, limit, signals: false, ...options })
}

const threadsOf = (service: Service<unknown>): readonly ServerThreadStats[] =>
  service.stats().servers['http']?.threads ?? []

/** The threads that are made from now on and have not ended. */
function threads(): Set<Worker> {
  const living = new Set<Worker>()
  const listener = (worker: Worker): void => {
    living.add(worker)
    worker.once('exit', () => living.delete(worker))
  }
  process.on('worker', listener)
  onTestFinished(() => void process.off('worker', listener))
  return living
}

function countOf(service: Service<unknown>, type: ServiceEvent['type']): () => number {
  let count = 0
  service.on('event', () => count++, { types: [type] })
  return () => count
}

/** Goes on for good. */
function goOn(word: Int32Array): void {
  Atomics.store(word, 1, 1)
  Atomics.notify(word, 1)
}

describe('Service.close() after a reload', () => {
  test('waits for the old thread and for the requests that it is answering', async () => {
    warnings()
    const living = threads()
    const waits = words(2)
    const service = create({ servers: { http: { module, data: { waits } } } })
    const replaced = countOf(service, 'millpond:server-reload')
    await service.start()
    const requests = [1, 2, 3].map(() => ask(undefined, portOf(service), '/waits'))
    await expect.poll(() => waits[0], { timeout: 10_000 }).toBe(3)
    const reloading = service.reload()
    await expect.poll(replaced, { timeout: 10_000 }).toBe(1)
    expect(living.size).toBe(2)
    const closing = service.close()
    // The new thread has nothing to wait for.
    await expect.poll(() => living.size, { timeout: 10_000 }).toBe(1)
    goOn(waits)
    for (const request of requests) expect(await request).toEqual(['answered', '"waited"'])
    await closing
    expect(living.size).toBe(0)
    await reloading
    await database.sessionsToBe(0)
  })

  test('ends the old thread at the deadline', async () => {
    warnings()
    const living = threads()
    const service = create({ closeTimeoutMs: 1_500, servers: { http: { module, data: {} } } })
    const replaced = countOf(service, 'millpond:server-reload')
    await service.start()
    const never = ask(undefined, portOf(service), '/hangs')
    const reloading = service.reload()
    await expect.poll(replaced, { timeout: 10_000 }).toBe(1)
    await service.close()
    expect(living.size).toBe(0)
    expect((await never)[0]).toBe('unmet')
    await reloading
    await database.sessionsToBe(0)
  })
})

describe('Service.reload()', () => {
  test('of a thread that dies just then makes one of it, not two', async () => {
    warnings()
    const living = threads()
    const blocks = words(2)
    const service = create({ servers: { http: { module, data: { blocks, diesThen: true } } } })
    const started = countOf(service, 'millpond:server-start')
    const ready = countOf(service, 'millpond:server-ready')
    await service.start()
    void ask(undefined, portOf(service), '/blocks')
    await expect.poll(() => blocks[0], { timeout: 10_000 }).toBe(1)
    const reloading = service.reload()
    goOn(blocks)
    await reloading
    await expect.poll(ready, { timeout: 10_000 }).toBe(started())
    expect(started()).toBe(2)
    expect(living.size).toBe(1)
    expect(threadsOf(service)).toMatchObject([{ state: 'ready', threadId: [...living][0]?.threadId, restarts: 1 }])
    await service.close()
    expect(living.size).toBe(0)
  })

  test('that fails where the limit has no room for one more `min` harms no old thread', async () => {
    warnings()
    // What it opens is counted by the time that it fails.
    const data = { lives: words(), failFrom: 3, opens: 'first' }
    const limit = { name: `reloads ${++names}`, connections: 3 }
    const pool = { min: 1, max: 3 }
    await using service = create({ limit, pool, servers: { http: { module, workers: 2, data } } })
    const ended = countOf(service, 'millpond:server-exit')
    await service.start()
    const before = threadsOf(service).map(({ threadId }) => threadId)
    await expect(service.reload()).rejects.toThrow('no life 3')
    await expect
      .poll(() => service.pool.stats().broker?.members.map(({ min }) => min), { timeout: 10_000 })
      .toEqual([1, 1, 1])
    expect(ended()).toBe(1)
    expect(threadsOf(service)).toMatchObject(before.map((threadId) => ({ threadId, state: 'ready', restarts: 0 })))
    for (const _ of before) expect((await ask(undefined, portOf(service), '/query'))[0]).toBe('answered')
  })

  test('that fails while others have taken the room for its `min` gives it back when they leave it', async () => {
    warnings()
    const lives = words()
    const failWhen = words(2)
    const data = { lives, failFrom: 2, failWhen }
    const limit = { name: `reloads ${++names}`, connections: 3 }
    await using service = create({ limit, pool: { min: 1, max: 3 }, servers: { http: { module, data } } })
    const ended = countOf(service, 'millpond:server-exit')
    await service.start()
    const port = portOf(service)
    // A pool is a member from its first use on.
    expect((await ask(undefined, port, '/query'))[0]).toBe('answered')
    const mins = (): unknown => service.pool.stats().broker?.members.map(({ min }) => min)
    expect(mins()).toEqual([1, 1])
    const reloading = service.reload()
    await expect.poll(() => lives[0], { timeout: 10_000 }).toBe(2)
    service.pool.resize({ min: 3 })
    goOn(failWhen)
    await expect(reloading).rejects.toThrow('no life 2')
    // It has heard by then that it may keep its `min` again.
    expect((await ask(undefined, port, '/'))[0]).toBe('answered')
    expect(mins()).toEqual([3, 0])
    service.pool.resize({ min: 1 })
    await expect.poll(mins, { timeout: 10_000 }).toEqual([1, 1])
    expect(ended()).toBe(1)
    expect((await ask(undefined, port, '/query'))[0]).toBe('answered')
  })

  test('that fails leaves a thread that listens on a channel the `min` that it had', async () => {
    warnings()
    const data = { lives: words(), failFrom: 2, hears: true }
    await using service = create({ pool: { min: 1 }, servers: { http: { module, data } } })
    await service.start()
    const mins = (): unknown => service.pool.stats().broker?.members.map(({ min }) => min)
    await expect.poll(mins, { timeout: 10_000 }).toEqual([1, 2])
    for (let n = 2; n < 4; n++) {
      await expect(service.reload()).rejects.toThrow(`no life ${n}`)
      await expect.poll(mins, { timeout: 10_000 }).toEqual([1, 2])
    }
  })

  test('waits for no thread that is blocked, and goes on to those after it', async () => {
    warnings()
    const living = threads()
    const blocks = words(2)
    const lives = words()
    const data = { lives, blocks }
    const service = create({ closeTimeoutMs: 1_500, servers: { http: { module, workers: 2, data } } })
    await service.start()
    const old = threadsOf(service).map(({ threadId }) => threadId)
    void ask(undefined, portOf(service), '/blocks')
    await expect.poll(() => blocks[0], { timeout: 10_000 }).toBe(1)
    await service.reload()
    expect(lives[0]).toBe(4)
    expect(living.size).toBe(2)
    for (const { threadId, state } of threadsOf(service)) {
      expect(old).not.toContain(threadId)
      expect(state).toBe('ready')
    }
    // Where ports cannot be shared, another one takes it over.
    const query = (): Promise<unknown> => ask(undefined, portOf(service), '/query')
    await expect.poll(query, { timeout: 10_000 }).toEqual(['answered', '1'])
    await service.close()
    expect(living.size).toBe(0)
  })

  test('ends one that stays blocked, also where servers may take any time to stop', async () => {
    warnings()
    const living = threads()
    const blocks = words(2)
    await using service = create({ closeTimeoutMs: Infinity, servers: { http: { module, data: { blocks } } } })
    await service.start()
    const [old] = living
    void ask(undefined, portOf(service), '/blocks')
    await expect.poll(() => blocks[0], { timeout: 10_000 }).toBe(1)
    await service.reload()
    expect(living.size).toBe(1)
    expect(living).not.toContain(old)
  })
})
