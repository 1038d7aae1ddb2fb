import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { PoolError } from 'millpond'
import { createService, serverModule, taskModule } from 'millpond/service'
import type { Service } from 'millpond/service'
import type { TestDatabase } from '../../support/database.ts'
import { createDatabase, until } from '../../support/database.ts'
import type { TestRole } from '../../support/role.ts'
import { createRole } from '../../support/role.ts'
import { Witness } from '../../threads/deaths/witness.ts'
import { load } from '../fixtures/load.mjs'
import { kill, prepare } from '../fixtures/mortal.mjs'
import type { Role, Way } from '../fixtures/mortal.mjs'

// All threads of a role die at the same time under load: how long is it until as much is done as before?
//   RECOVERY_ROUNDS=5   each role by itself as well, each way so often, and a line that says how long it took

type Tasks = typeof import('../fixtures/mortal-tasks.mjs')

const tasks = taskModule<Tasks>(new URL('../fixtures/mortal-tasks.mjs', import.meta.url))
const module = serverModule(new URL('../fixtures/mortal-server.mjs', import.meta.url))

const rounds = Number(process.env['RECOVERY_ROUNDS'] ?? 1)
const limit = 5
const workers = 2
/** Throughput is looked at in windows of so long. */
const windowMs = 200
/** So much of what was done before is to be done again; a machine that others use as well gives less at times. */
const share = rounds > 1 ? 0.8 : 0.3
/** It takes well below 2 s where nothing else runs. */
const longestMs = 15_000

let names = 0
const living = new Set<Worker>()

async function start(role: TestRole): Promise<Service<Tasks>> {
  const service = createService<Tasks>({
    url: role.url,
    limit: { name: `recovery ${++names}`, connections: limit },
    signals: false,
    tasks: { module: tasks, workers },
    servers: { http: { module, workers } },
  })
  await service.start()
  return service
}

/** Does one thing after the other until it is told to stop, and counts. */
class Callers {
  readonly failures: unknown[] = []
  done = 0
  asked = 0
  readonly #ended: Promise<unknown>
  #going = true

  constructor(count: number, service: Service<Tasks>) {
    this.#ended = Promise.all(Array.from({ length: count }, () => this.#call(service)))
  }

  async stop(): Promise<void> {
    this.#going = false
    await this.#ended
  }

  async #call(service: Service<Tasks>): Promise<void> {
    while (this.#going) {
      this.asked++
      try {
        expect(await service.run('queries', 1)).toBe(2)
        this.done++
      } catch (error) {
        this.failures.push(error)
      }
    }
  }
}

/** Whatever is counted, for each window. */
async function within(count: () => number): Promise<number> {
  const [before, startedAt] = [count(), performance.now()]
  await sleep(windowMs)
  return ((count() - before) * windowMs) / (performance.now() - startedAt)
}

/** The middle one of some windows. */
async function usual(count: () => number): Promise<number> {
  const all: number[] = []
  for (let i = 0; i < 5; i++) all.push(await within(count))
  return all.toSorted((a, b) => a - b)[2] ?? 0
}

/** Resolves when a window has seen as much as before, or nearly: with how long that took. */
async function recovery(count: () => number, before: number, broker: () => unknown): Promise<number> {
  const startedAt = performance.now()
  for (;;) {
    const now = await within(count)
    const ms = performance.now() - startedAt
    if (now >= share * before) return ms
    if (ms > longestMs) throw new Error(`${now} in a window where it was ${before}: ${JSON.stringify(broker())}`)
  }
}

function threadsOf(service: Service<Tasks>, which: Role): number[] {
  const name = which === 'tasks' ? 'tasks' : 'server'
  return service.stats().threads.flatMap(({ role: its, threadId }) => (its === name ? [threadId] : []))
}

/** From the last of the deaths on. */
interface Recovered {
  readonly tasksMs: number
  readonly serversMs: number
  readonly lost: number
}

async function killAll(role: TestRole, way: Way | 'terminate', roles: readonly Role[]): Promise<Recovered> {
  const orders = prepare()
  // Of the threads that are started from now on.
  setFlagsFromString(`--max-old-space-size=${way === 'memory' ? 48 : 2_048}`)
  const service = await start(role)
  await using witness = new Witness(role)
  const { port } = service.addresses('http')[0] as { port: number }
  const callers = new Callers(6, service)
  const clients = load(port, ['/', '/task'], 6)
  const counts = [() => callers.done, () => clients.counts.answered] as const
  await until(() => callers.done > 200 && clients.counts.answered > 200, 'load')
  const before = await Promise.all(counts.map(usual))
  const dying = roles.flatMap((one) => threadsOf(service, one))
  expect(dying).toHaveLength(roles.length * workers)
  const mortal = [...living].filter(({ threadId }) => dying.includes(threadId))
  const deaths = mortal.map((one) => new Promise((resolve) => one.once('exit', resolve)))
  if (way === 'terminate') for (const one of mortal) void one.terminate()
  if (way !== 'terminate') for (const one of roles) kill(orders, one, workers, way)
  await Promise.all(deaths)
  const [tasksMs, serversMs] = (await Promise.all(
    counts.map((count, i) => recovery(count, before[i] as number, () => service.pool.stats().broker)),
  )) as [number, number]
  await until(() => threadsOf(service, 'tasks').length === workers && service.ready(), 'as many threads as before')
  await callers.stop()
  const { reset, cut, unmet } = await clients.stop()
  // Each caller got its result, or an error that says what happened.
  expect(callers.failures.length + callers.done).toBe(callers.asked)
  for (const error of callers.failures) {
    expect(error).toBeInstanceOf(PoolError)
    expect(error).toMatchObject({ code: 'ERR_WORKER_LOST' })
  }
  for (const answer of clients.answers) expect(JSON.parse(answer)).toMatchObject({ code: 'ERR_WORKER_LOST' })
  // Only what was under way when the threads died.
  expect(callers.failures.length + clients.answers.length).toBeLessThanOrEqual(12)
  expect(reset + cut + unmet).toBeLessThanOrEqual(roles.includes('servers') ? 12 : 0)
  await service.close()
  expect(witness.peak).toBeGreaterThan(1)
  expect(witness.peak).toBeLessThanOrEqual(limit)
  await until(async () => (await role.sessions()).length === 0, 'the end of all sessions')
  return { tasksMs, serversMs, lost: callers.failures.length }
}

const together: readonly Role[] = ['tasks', 'servers']
const scenes: readonly (readonly Role[])[] = rounds > 1 ? [['tasks'], ['servers'], together] : [together]

/** Declares the tests of these ways to die. */
export function testRecovery(ways: readonly (Way | 'terminate')[]): void {
  let database: TestDatabase
  let role: TestRole

  beforeAll(async () => {
    database = await createDatabase()
    role = await createRole(database, limit)
    process.on('worker', (worker) => {
      living.add(worker)
      worker.once('exit', () => living.delete(worker))
    })
  })

  afterAll(() => database.drop())

  test.each(ways.flatMap((way) => scenes.map((roles) => ({ way, roles, all: roles.join(' and ') }))))(
    'all threads of $all die under load ($way): every call is answered, and soon as much is done as before',
    { timeout: 30_000 * rounds },
    async ({ way, roles, all }) => {
      const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
      onTestFinished(() => warned.mockRestore())
      for (let round = 0; round < rounds; round++) {
        const { tasksMs, serversMs, lost } = await killAll(role, way, roles)
        const line = `${way} of all ${all}: tasks after ${tasksMs.toFixed(0)} ms, requests after ${serversMs.toFixed(0)} ms, ${lost} calls lost`
        if (rounds > 1) process.stdout.write(`${line}\n`)
      }
    },
  )
}
