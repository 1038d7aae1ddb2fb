import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

class Signalled {
  readonly child: ChildProcess
  readonly exited: Promise<unknown[]>
  output = ''

  constructor(...args: string[]) {
    const script = fileURLToPath(new URL('./fixtures/signalled.mjs', import.meta.url))
    this.child = spawn(process.execPath, [script, database.url, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.exited = once(this.child, 'exit')
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.output += chunk.toString()
    })
    onTestFinished(() => void this.child.kill('SIGKILL'))
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

test('Service ends at once with a second signal', async () => {
  const service = new Signalled('stuck')
  await service.ready()
  service.child.kill('SIGTERM')
  // The first one waits for a task that computes for a minute.
  await expect.poll(() => service.output).toContain('signalled')
  service.child.kill('SIGTERM')
  expect(await service.exited).toEqual([128 + 15, null])
})
