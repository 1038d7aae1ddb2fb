import { afterAll, beforeAll, expect, test } from 'vitest'
import type { PostgresPool } from '../../src/postgres/index.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { makePool } from '../support/pool.ts'

// Two pools under one limit, as two threads have them.

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

let names = 0

function makePair(connections: number): [PostgresPool, PostgresPool] {
  const limit = { name: `${db.name} ${++names}`, connections }
  const one = (): PostgresPool => makePool(db, { max: connections, limit, pipelining: 8 })
  return [one(), one()]
}

/** So many callers ask without a pause, until the callback has settled. */
async function busy<R>(pool: PostgresPool, callers: number, fn: (answers: () => number) => Promise<R>): Promise<R> {
  let going = true
  let answers = 0
  const caller = async (i: number): Promise<void> => {
    for (let j = 0; going; j++) {
      const [row] = await pool.sql`select ${i}::int as i, ${j}::int as j`
      expect(row).toEqual({ i, j })
      answers++
    }
  }
  const all = Promise.all(Array.from({ length: callers }, (_, i) => caller(i)))
  try {
    return await fn(() => answers)
  } finally {
    going = false
    await all
  }
}

const open = (pool: PostgresPool): number => pool.stats().open
const wants = (pool: PostgresPool): number[] => pool.stats().broker?.members.map((member) => member.wants) ?? []

test('connections that are shared without a pause go to a pool that has none', async () => {
  const [rich, poor] = makePair(2)
  // So many that there is always somebody to share with.
  await busy(rich, 60, async (answers) => {
    await until(() => open(rich) === 2 && answers() > 1_000, 'the first one to have both')
    const [row] = await poor.sql`select 'mine' as whose`
    expect(row).toEqual({ whose: 'mine' })
    expect(open(rich)).toBeLessThan(2)
    const before = answers()
    await until(() => answers() > before + 100, 'the first one to go on')
  })
  expect(rich.stats()).toMatchObject({ timeouts: 0, waiting: 0 })
})

test('two pools that are as busy have as many each', async () => {
  const [one, other] = makePair(4)
  await busy(one, 60, async (answers) => {
    await until(() => open(one) === 4 && answers() > 1_000, 'the first one to have all')
    await busy(other, 60, async (others) => {
      await until(() => open(one) === 2 && open(other) === 2, 'two and two')
      const before = [answers(), others()] as const
      await until(() => answers() > before[0] + 200 && others() > before[1] + 200, 'both to go on')
      expect(open(one) + open(other)).toBeLessThanOrEqual(4)
    })
  })
})

test('a pool whose queries share its connection takes what another one has and does not use', async () => {
  const [one, other] = makePair(4)
  await Promise.all([1, 2, 3].map((i) => other.sql`select pg_sleep(0.01), ${i}::int as i`))
  await busy(one, 1, async (answers) => {
    await until(() => answers() > 10, 'it to have one')
    expect([open(one), open(other)]).toEqual([1, 3])
    const before = one.stats().acquiresWaited
    await busy(one, 6, async () => {
      await until(() => open(one) > 1, 'it to have more')
      // Nobody has waited for a connection.
      expect(one.stats().acquiresWaited).toBe(before)
    })
  })
})

test('what is wanted for queries that share is wanted no longer when there are none', async () => {
  const [one, other] = makePair(2)
  const held = await other.acquire()
  await busy(one, 1, async (answers) => {
    await until(() => answers() > 10, 'it to have one')
    await busy(one, 6, async () => {
      await until(() => wants(one).includes(1), 'it to want another one')
    })
  })
  const last = await one.acquire()
  const wantsNone = (): boolean => {
    // Has it say how it stands.
    one.resize({ max: 3 })
    return wants(one).every((count) => count === 0)
  }
  await until(wantsNone, 'nobody to want any')
  expect(one.stats()).toMatchObject({ open: 1, idle: 0, max: 3 })
  await Promise.all([held.release(), last.release()])
})
