import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { load } from './fixtures/load.mjs'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

class Signalled {
  readonly child: ChildProcess
  readonly exited: Promise<unknown[]>
  output = ''

  constructor(name = 'signalled', ...args: string[]) {
    const script = fileURLToPath(new URL(`./fixtures/${name}.mjs`, import.meta.url))
    this.child = spawn(process.execPath, [script, database.url, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.exited = once(this.child, 'exit')
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.output += chunk.toString()
    })
    onTestFinished(() => void this.child.kill('SIGKILL'))
  }

  /** Where it listens, once it does. */
  async port(): Promise<number> {
    await expect.poll(() => this.output, { timeout: 20_000 }).toMatch(/port \d+\n/)
    return Number(/port (\d+)/.exec(this.output)?.[1])
  }

  async ready(): Promise<void> {
    await expect.poll(() => this.output, { timeout: 10_000 }).toContain('ready')
  }
}

test.each(['SIGTERM', 'SIGINT'] as const)(
  'Service closes on %s: what is under way is answered, and the process ends with 0',
  async (signal) => {
    const service = new Signalled()
    await service.ready()
    const slow = (): Promise<boolean> =>
      database.sessions().then((all) => all.some(({ query, state }) => query.includes('slow') && state === 'active'))
    await expect.poll(slow, { timeout: 5_000 }).toBe(true)
    service.child.kill(signal)
    expect(await service.exited).toEqual([0, null])
    expect(service.output).toContain('answered slow')
    await database.sessionsToBe(0)
  },
)

test('Service waits on SIGTERM for the thread that a reload retires', async () => {
  const service = new Signalled('signalled', 'slower')
  await service.ready()
  const slower = (): Promise<boolean> =>
    database.sessions().then((all) => all.some(({ query, state }) => query.includes('slower') && state === 'active'))
  await expect.poll(slower, { timeout: 10_000 }).toBe(true)
  service.child.kill('SIGHUP')
  await expect.poll(() => service.output, { timeout: 10_000 }).toContain('replaced')
  expect(service.output).not.toContain('answered')
  service.child.kill('SIGTERM')
  expect(await service.exited).toEqual([0, null])
  expect(service.output).toContain('answered slower')
  await database.sessionsToBe(0)
})

test('Service ends at once with a second signal', async () => {
  const service = new Signalled('signalled', 'stuck')
  await service.ready()
  service.child.kill('SIGTERM')
  // The first one waits for a task that computes for a minute.
  await expect.poll(() => service.output).toContain('signalled')
  service.child.kill('SIGTERM')
  expect(await service.exited).toEqual([128 + 15, null])
})

test.each(['1', '2'])(
  'Service closes on SIGTERM under load: of %s threads, no request that was accepted is dropped',
  { timeout: 60_000 },
  async (workers) => {
    const service = new Signalled('under-load', workers)
    const clients = load(await service.port(), ['/', '/query', '/task', '/sleep'], 8)
    await expect.poll(() => clients.counts.answered, { timeout: 20_000 }).toBeGreaterThan(100)
    const signalledAt = performance.now()
    service.child.kill('SIGTERM')
    expect(await service.exited).toEqual([0, null])
    expect(performance.now() - signalledAt).toBeLessThan(10_000)
    const { answered, reset, cut, wrong, refused, unmet } = await clients.stop()
    expect({ reset, cut, wrong, answers: clients.answers }).toEqual({ reset: 0, cut: 0, wrong: 0, answers: [] })
    await expect.poll(() => service.output).toContain(`received ${answered}.`)
    // It was under load to the end: those that came later found nobody.
    expect(refused).toBeGreaterThan(0)
    // Connections that the system had made and the server had not accepted when it ceased to listen.
    expect(unmet).toBeLessThanOrEqual(8)
    expect(await database.sessions()).toEqual([])
  },
)

test('Service ends with 0 at its deadline although a request is never answered, and leaves no backend', async () => {
  const service = new Signalled('under-load', '1')
  const port = await service.port()
  const clients = load(port, ['/hangs'], 1)
  const others = load(port, ['/query'], 2)
  await expect.poll(() => others.counts.answered, { timeout: 20_000 }).toBeGreaterThan(10)
  const signalledAt = performance.now()
  service.child.kill('SIGTERM')
  expect(await service.exited).toEqual([0, null])
  expect(performance.now() - signalledAt).toBeLessThan(10_500)
  const [{ unmet }, { reset, cut, wrong }] = [await clients.stop(), await others.stop()]
  expect({ unmet, reset, cut, wrong }).toEqual({ unmet: 1, reset: 0, cut: 0, wrong: 0 })
  await database.sessionsToBe(0)
})
