import { execFile } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, test } from 'vitest'
import type { PoolStats } from '../../src/stats.ts'

// Threads run JavaScript: both sides use what was built.
const { createBroker } = (await import(
  new URL('../../dist/src/broker/broker.js', import.meta.url).href
)) as typeof import('../../src/broker/broker.ts')

interface Message {
  readonly event: string
  readonly threadId: number
  readonly held: number
  readonly tag?: string
  readonly code?: string
  readonly message?: string
  readonly identity?: { pid: number; secret: number; tag: string }
}

const threads: Thread[] = []
let brokers = 0
const newName = (): string => `threads-${++brokers}`

class Thread {
  readonly worker: Worker
  readonly messages: Message[] = []

  constructor(workerData: { name: string; min?: number; nested?: boolean }) {
    this.worker = new Worker(new URL('fixtures/member.mjs', import.meta.url), { workerData })
    this.worker.on('message', (message: Message) => this.messages.push(message))
    threads.push(this)
  }

  tell(message: object): void {
    this.worker.postMessage(message)
  }

  async hear(event: string): Promise<Message> {
    for (;;) {
      const index = this.messages.findIndex((one) => one.event === event)
      if (index >= 0) return this.messages.splice(index, 1)[0]!
      await once(this.worker, 'message')
    }
  }
}

async function serve(thread: Thread, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    thread.tell({ acquire: 1 })
    await thread.hear('held')
    thread.tell({ give: 1 })
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => void setImmediate(resolve))
}

afterEach(async () => {
  await Promise.all(threads.splice(0).map(({ worker }) => worker.terminate()))
})

describe('Member, in threads of their own', () => {
  test('two share a limit: who asks gets what the other gives', async () => {
    const broker = createBroker({ name: newName(), limit: 2 })
    const [a, b] = [new Thread(broker), new Thread(broker)]
    a.tell({ acquire: 2 })
    const first = await a.hear('held')
    const second = await a.hear('held')
    expect(first.tag).not.toBe(second.tag)
    b.tell({ acquire: 1 })
    await until(() => broker.stats().members.some(({ wants }) => wants === 1))
    expect(broker.stats()).toMatchObject({ held: 2, free: 0 })
    a.tell({ give: 1 })
    const moved = await b.hear('held')
    expect([first.tag, second.tag]).not.toContain(moved.tag)
    await until(() => broker.stats().moves === 1)
    expect(broker.stats()).toMatchObject({ held: 2, free: 0, closing: 0, granted: 0, limbo: 0 })
  })

  for (const death of ['terminated', 'terminated while its event loop is blocked'] as const) {
    test(`what one had that is ${death} is reaped by another`, async () => {
      const broker = createBroker({ name: newName(), limit: 2 })
      const [a, b] = [new Thread(broker), new Thread(broker)]
      a.tell({ acquire: 2 })
      const tags = [(await a.hear('held')).tag, (await a.hear('held')).tag]
      b.tell({ acquire: 2 })
      await until(() => broker.stats().members.some(({ wants }) => wants === 2))
      if (death !== 'terminated') a.tell({ busy: true })
      await a.hear('done')
      const lost: unknown[] = []
      const onLost = (event: unknown): void => void lost.push(event)
      subscribe('millpond:lost', onLost)
      const { threadId } = a.worker
      await a.worker.terminate()
      const reaped = [(await b.hear('reaped')).identity!, (await b.hear('reaped')).identity!]
      expect(new Set(reaped.map(({ tag }) => tag))).toEqual(new Set(tags))
      expect(new Set(reaped.map(({ pid }) => pid))).toEqual(new Set([1000, 1001]))
      expect(reaped.map(({ secret }) => secret)).toEqual([0xfedcba98, 0xfedcba98])
      const now = [(await b.hear('held')).tag, (await b.hear('held')).tag]
      for (const tag of tags) expect(now).not.toContain(tag)
      expect(broker.stats()).toMatchObject({ held: 2, limbo: 0, free: 0 })
      expect(broker.stats().members).toHaveLength(1)
      unsubscribe('millpond:lost', onLost)
      expect(lost).toEqual([{ type: 'millpond:lost', broker: broker.name, threadId, members: 1 }])
    })
  }

  test('what the last one had is reaped by the next to enrol', async () => {
    const broker = createBroker({ name: newName(), limit: 1 })
    const a = new Thread(broker)
    a.tell({ acquire: 1 })
    await a.hear('held')
    await a.worker.terminate()
    await until(() => broker.stats().limbo === 1)
    const b = new Thread(broker)
    await b.hear('reaped')
    b.tell({ acquire: 1 })
    await b.hear('held')
  })

  test('joins from a nested thread, whose death is noticed when the outer one is terminated', async () => {
    const broker = createBroker({ name: newName(), limit: 1 })
    const outer = new Thread({ name: broker.name, nested: true })
    outer.tell({ acquire: 1 })
    await outer.hear('held')
    await outer.worker.terminate()
    await until(() => broker.stats().limbo === 1)
    expect(broker.stats().members).toEqual([])
  })

  test('leaves: its permits go to others, its row to the next', async () => {
    const broker = createBroker({ name: newName(), limit: 1, members: 1 })
    const a = new Thread(broker)
    await a.hear('enrolled')
    await until(() => broker.stats().members.length === 1)
    const b = new Thread(broker)
    expect(await b.hear('failed')).toMatchObject({ code: 'ERR_BROKER_FULL' })
    a.tell({ leave: true })
    await until(() => broker.stats().members.length === 0)
    const c = new Thread(broker)
    await c.hear('enrolled')
    c.tell({ acquire: 1 })
    await c.hear('held')
  })

  test('finds no broker of an unknown name, and asks whether the worker was there first', async () => {
    const failed = await new Thread({ name: 'no such broker' }).hear('failed')
    expect(failed).toMatchObject({ code: 'ERR_NO_BROKER' })
    expect(failed.message).toContain('Was it created after this worker was started?')
  })

  test('is refused when more connections would be kept open than there may be', async () => {
    const broker = createBroker({ name: newName(), limit: 3 })
    const a = new Thread({ name: broker.name, min: 2 })
    await a.hear('enrolled')
    const failed = await new Thread({ name: broker.name, min: 2 }).hear('failed')
    expect(failed).toMatchObject({ code: 'ERR_BROKER_MISMATCH' })
    expect(failed.message).toContain('add up to 4')
  })

  test('is refused when the broker is closed', async () => {
    const broker = createBroker({ name: newName(), limit: 1 })
    const a = new Thread(broker)
    a.tell({ acquire: 2 })
    await a.hear('held')
    const closed = broker.close()
    expect(await a.hear('refused')).toMatchObject({ code: 'ERR_BROKER_CLOSED' })
    a.tell({ give: 1 })
    await closed
    expect(broker.stats()).toMatchObject({ held: 0, closing: 0, free: 1 })
    expect(await new Thread(broker).hear('failed')).toMatchObject({ code: 'ERR_BROKER_CLOSED' })
  })

  test(
    'hands one permit around between many threads, some of which die, and loses none',
    { timeout: 60_000 },
    async () => {
      const broker = createBroker({ name: newName(), limit: 3 })
      const members = Array.from({ length: 4 }, () => new Thread(broker))
      const served = Promise.all(members.map((thread) => serve(thread, 200)))
      for (let i = 0; i < 5; i++) {
        const mortal = new Thread(broker)
        mortal.tell({ acquire: 2 })
        await mortal.hear('held')
        await mortal.worker.terminate()
      }
      await served
      await until(() => broker.stats().free === 3)
    },
  )
})

describe('Pools, in threads of their own', () => {
  test('never have more connections than the limit, and serve every acquire', { timeout: 60_000 }, async () => {
    const limit = 4
    const broker = createBroker({ name: newName(), limit })
    const counters = new Int32Array(new SharedArrayBuffer(12))
    const load = { name: broker.name, counters, serviceMs: 2, connectMs: 5, max: 10 }
    const loads = [
      { ...load, clients: 8, times: 60 },
      { ...load, clients: 8, times: 60 },
      { ...load, clients: 1, times: 60 },
      { ...load, clients: 20, times: 30 },
      { ...load, clients: 3, times: 10 },
      { ...load, clients: 3, times: 10 },
    ]
    const ends = loads.map(async (workerData) => {
      const worker = new Worker(new URL('fixtures/pool.mjs', import.meta.url), { workerData })
      const [stats] = (await once(worker, 'message')) as [PoolStats]
      return stats
    })
    const stats = await Promise.all(ends)
    const [open, most, served] = counters
    expect(open).toBe(0)
    expect(most).toBeLessThanOrEqual(limit)
    expect(served).toBe(loads.reduce((sum, { clients, times }) => sum + clients * times, 0))
    expect(stats.map(({ timeouts }) => timeouts)).toEqual(loads.map(() => 0))
    expect(broker.stats()).toMatchObject({ free: limit, members: [] })
  })
})

describe('A broker and its members', () => {
  test('keep no thread and no process alive', async () => {
    const fixture = fileURLToPath(new URL('fixtures/quiet.mjs', import.meta.url))
    const { stdout } = await promisify(execFile)(process.execPath, [fixture], { timeout: 20_000 })
    expect(stdout.trim().split('\n')).toEqual(expect.arrayContaining(['worker 0', 'main ends']))
  })
})
