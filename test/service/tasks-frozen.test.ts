import { setEnvironmentData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createPool } from 'millpond/postgres'
import type { PostgresPool } from 'millpond/postgres'
import { piscinaOptions } from 'millpond/service'
import type { PoolStats } from 'millpond'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

const filename = fileURLToPath(new URL('./fixtures/tasks-frozen.mjs', import.meta.url))

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Two workers, each of a Piscina of its own, so that a task's worker is known. */
async function withTwo(
  connections: number,
  options: ConstructorParameters<typeof Piscina>[0],
  fn: (first: Piscina, second: Piscina, pool: PostgresPool) => Promise<void>,
): Promise<void> {
  const name = `frozen ${connections} ${Math.random()}`
  setEnvironmentData('frozen piscina', { url: database.url, name, connections })
  await using pool = createPool(database.url, { limit: { name, connections }, acquireTimeoutMs: 5_000 })
  const [first, second] = [0, 1].map(() => new Piscina({ filename, minThreads: 1, maxThreads: 1, ...options }))
  try {
    // Node.js 20 and 22 abort the process where a thread ends while it loads ES modules by `require`, as Piscina does.
    await Promise.all([first as Piscina, second as Piscina].map((piscina) => run(piscina, 'warnings')))
    await fn(first as Piscina, second as Piscina, pool)
  } finally {
    await Promise.all([first?.destroy(), second?.destroy()])
  }
}

const run = (piscina: Piscina, name: string): Promise<unknown> => piscina.run(undefined, { name })

describe('a pool in a worker of a Piscina with Piscina’s own defaults', () => {
  const tasks: readonly [name: string, result: unknown][] = [
    ['oneShot', 1],
    ['failing', '22012'],
    ['late', 'ERR_QUERY_TIMEOUT'],
    ['tooLate', 'ERR_QUERY_TIMEOUT'],
    ['givenUp', 'ERR_ACQUIRE_TIMEOUT'],
    ['lost', 'ERR_CONNECTION_LOST'],
    ['use', 1],
    ['parallel', 5],
    ['transaction', 1],
    ['open', undefined],
    ['throughDropIn', 1],
    ['lease', undefined],
    ['destroyed', undefined],
    ['session', undefined],
    ['cursor', 10],
    ['cursorLeft', 1],
    ['cursorCalledBack', 10],
    ['forEach', 10],
  ]

  test.each(tasks)('gives back what it had when a task ends: %s', async (name, result) => {
    await withTwo(1, {}, async (first, second, pool) => {
      for (let round = 0; round < 3; round++) {
        expect(await run(first, name)).toEqual(result)
        expect(await database.sessions()).toEqual([])
        expect(await run(second, name)).toEqual(result)
        await pool.use(() => {})
        await pool.releaseIdle()
      }
    })
  })

  test('gives back what it had opened for more queries than it needed', async () => {
    await withTwo(3, {}, async (first, second, pool) => {
      for (let round = 0; round < 5; round++) {
        for (const piscina of [first, second]) {
          expect(await run(piscina, 'parallel')).toBe(5)
          expect(await database.sessions()).toEqual([])
        }
        // All three permits can be had while both workers stand still.
        const leases = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()])
        await Promise.all(leases.map((lease) => lease.destroy()))
        await database.sessionsToBe(0)
      }
    })
  })

  test('tells of a query what it tells elsewhere', async () => {
    await withTwo(1, {}, async (first) => {
      await run(first, 'cursor')
      await run(first, 'parallel')
      expect(await run(first, 'told')).toMatchObject({ rows: 1, command: 'SELECT' })
    })
  })

  test('refuses BEGIN on a drop-in of one connection, which would not last', async () => {
    await withTwo(1, {}, async (first) => {
      expect(await run(first, 'begins')).toBe('UNSAFE_TRANSACTION')
    })
  })

  test('warns once in each thread, and says what to do', async () => {
    await withTwo(1, {}, async (first) => {
      await run(first, 'oneShot')
      await run(first, 'throughDropIn')
      expect(await run(first, 'warnings')).toEqual([expect.stringMatching(/^MillpondWarning: .*piscinaOptions/)])
    })
  })
})

describe('a pool in a worker of a Piscina whose event loop runs between tasks', () => {
  test.each([
    ['piscinaOptions', piscinaOptions],
    ['PISCINA_DISABLE_ATOMICS', { env: { ...process.env, PISCINA_DISABLE_ATOMICS: '1' } }],
  ])('keeps idle connections, and does not warn: %s', async (_, options) => {
    await withTwo(2, options, async (first) => {
      await run(first, 'open')
      await run(first, 'oneShot')
      expect(await run(first, 'stats')).toMatchObject({ min: 1, idle: 1 } satisfies Partial<PoolStats>)
      expect(await run(first, 'warnings')).toEqual([])
    })
  })
})
