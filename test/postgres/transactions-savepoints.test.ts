import { setTimeout as sleep } from 'node:timers/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LeaseReleasedError, TransactionOutcomeUnknownError } from '../../src/errors.ts'
import { deferred } from '../../src/deferred.ts'
import type { PostgresPool, PostgresPoolOptions, PostgresSql, TransactionSql } from '../../src/postgres/index.ts'
import { rejection } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { insert, makePool, makeTable } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, options)

describe('savepoints', () => {
  test('savepoint() and pool.transaction() nest in each other, and undo themselves alone', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    const no = new Error('no')
    await pool.transaction(async (sql) => {
      await insert(sql, name, 1)
      await pool.transaction(async (first) => {
        await insert(first, name, 2)
        const second = first.savepoint(async () => {
          await insert(pool.sql, name, 3)
          await pool.transaction(() => insert(pool.sql, name, 4))
          throw no
        })
        expect(await rejection(second)).toBe(no)
        await insert(first, name, 5)
      })
      expect(await rejection(pool.transaction(() => Promise.reject(no)))).toBe(no)
      expect((await rejection(pool.transaction(() => insert(pool.sql, name, 1)))).code).toBe('23505')
      await insert(pool.sql, name, 6)
    })
    expect(await read()).toEqual([1, 2, 5, 6])
    expect(pool.stats().opens).toBe(1)
  })

  test('savepoints side by side take turns, and so do queries beside them', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await pool.transaction(async (sql) => {
      const results = await Promise.allSettled([
        insert(sql, name, 1),
        pool.transaction(async () => {
          await insert(pool.sql, name, 2)
          await sleep(5)
          await insert(pool.sql, name, 3)
          throw new Error('no')
        }),
        // Not undone with the one before it.
        insert(pool.sql, name, 4),
        sql.savepoint(async (inner) => {
          await sleep(1)
          await Promise.all([insert(inner, name, 5), insert(pool.sql, name, 6), insert(sql, name, 7)])
        }),
        pool.transaction(() => Promise.all([insert(pool.sql, name, 9), insert(pool.sql, name, 9)])),
        insert(sql, name, 8),
      ])
      expect(results.map(({ status }) => status[0])).toEqual(['f', 'r', 'f', 'f', 'r', 'f'])
    })
    expect(await read()).toEqual([1, 4, 5, 6, 7, 8])
  })

  test('savepoint() includes what the tags around it run inside of it, and queries that were made before', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await pool.transaction(async (outer) => {
      const made = insert(outer, name, 1)
      const broken = outer.savepoint(async (middle) => {
        await insert(outer, name, 2)
        await middle.savepoint(async () => {
          await Promise.all([insert(outer, name, 3), insert(middle, name, 4), insert(pool.sql, name, 5), made])
          await outer.savepoint(() => insert(middle, name, 6))
        })
        await pool.outside(() => insert(outer, name, 7))
        throw new Error('no')
      })
      expect((await rejection(broken)).message).toBe('no')
      await insert(outer, name, 8)
    })
    expect(await read()).toEqual([8])
  })

  test('savepoint() that throws cancels what it left running, and the transaction goes on', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    const ended = deferred<void>()
    const left: Promise<Error & { code?: string }>[] = []
    await pool.transaction(async (sql) => {
      const inner = sql.savepoint(async (own) => {
        left.push(rejection(own`select pg_sleep(60), 'left'`), rejection(insert(own, name, 1)))
        left.push(rejection(ended.promise.then(() => insert(own, name, 2))))
        await db.toRun("'left'")
        throw new Error('no')
      })
      expect((await rejection(inner)).message).toBe('no')
      ended.resolve()
      expect((await Promise.all(left)).map(({ code }) => code)).toEqual([
        '57014',
        'ERR_LEASE_RELEASED',
        'ERR_LEASE_RELEASED',
      ])
      await insert(sql, name, 3)
    })
    expect(await read()).toEqual([3])
    expect(pool.stats().opens).toBe(1)
  })

  test('savepoint() ends with the transaction around it', async () => {
    const pool = make({ max: 1 })
    const { name, read } = await makeTable(pool)
    const no = new Error('no')
    const ended = deferred<void>()
    let late: Promise<Error> | undefined
    let inner: Promise<Error> | undefined
    const attempt = pool.transaction(async (sql) => {
      inner = rejection(
        sql.savepoint(async (own) => {
          await insert(own, name, 1)
          late = rejection(ended.promise.then(() => insert(own, name, 2)))
          await late
          await insert(own, name, 3)
        }),
      )
      await until(() => late !== undefined)
      throw no
    })
    expect(await rejection(attempt)).toBe(no)
    ended.resolve()
    expect(await late).toBeInstanceOf(LeaseReleasedError)
    expect(await inner).toBeInstanceOf(LeaseReleasedError)
    expect(await read()).toEqual([])
    expect(pool.stats().opens).toBe(1)
  })

  test('savepoint() that is given up while it waits for its turn leaves the turn to the next one', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await pool.transaction(async (sql) => {
      const controller = new AbortController()
      let called = false
      const waiting = rejection(
        sql.savepoint(async (inner) => {
          await insert(inner, name, 1)
          controller.abort(new Error('enough'))
          await insert(inner, name, 2)
          throw new Error('no')
        }),
      )
      const givenUp = rejection(pool.transaction(() => void (called = true), { signal: controller.signal }))
      const next = pool.transaction(() => insert(pool.sql, name, 3))
      expect((await givenUp).message).toBe('enough')
      expect((await waiting).message).toBe('no')
      await next
      await insert(sql, name, 4)
      expect(called).toBe(false)
    })
    expect(await read()).toEqual([3, 4])
  })

  test('savepoint() of a lazy transaction begins both with its first query', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    const { acquires } = pool.stats()
    await pool.transaction(
      async (sql) => {
        await pool.transaction(
          async () => {
            expect(pool.stats().acquires).toBe(acquires)
            await insert(pool.sql, name, 1)
          },
          { lazy: true },
        )
        await sql.savepoint((inner) => insert(inner, name, 2))
      },
      { lazy: true },
    )
    expect(await read()).toEqual([1, 2])
  })

  test('savepoint() in a failed transaction rejects with what has failed it', async () => {
    const pool = make()
    let called = false
    const attempt = pool.transaction(async (sql) => {
      await rejection(sql`select 1/0`)
      await pool.transaction(() => void (called = true))
    })
    expect((await rejection(attempt)).code).toBe('22012')
    expect(called).toBe(false)
  })
})

describe('streams in transactions', () => {
  test('transaction() copies in and out, and goes on after a cursor that was left', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await pool.transaction(async (sql) => {
      await pipeline(Readable.from(['1\n', '2\n']), await sql.unsafe(`copy ${name} from stdin`).writable())
      for await (const rows of pool.sql`select a from ${sql(name)}`.cursor(1)) {
        expect(rows).toHaveLength(1)
        break
      }
      await pool.transaction(async () => {
        for await (const _ of pool.sql`select a from ${sql(name)}`.cursor(1)) break
      })
      await insert(sql, name, 3)
    })
    expect(await read()).toEqual([1, 2, 3])
    expect(pool.stats().opens).toBe(1)
  })

  test('transaction() refuses what would wait for the reader of a cursor, who waits for it', async () => {
    const pool = make()
    const { name, read } = await makeTable(pool)
    await pool.transaction(async (sql) => {
      const errors: unknown[] = []
      for await (const rows of pool.sql`select generate_series(1, 2) as a`.cursor(1)) {
        const a = rows[0]?.['a'] as number
        errors.push((await rejection(insert(pool.sql, name, a))).code)
        errors.push((await rejection(pool.transaction(() => insert(pool.sql, name, a)))).code)
        await pool.outside(async () => await insert(pool.sql, name, a))
      }
      expect(errors).toEqual(Array.from({ length: 4 }, () => 'ERR_SESSION_BUSY'))
      // Somebody else reads on.
      const all = async (): Promise<number> => {
        let n = 0
        for await (const rows of sql`select generate_series(1, 50)`.cursor(5)) n += rows.length
        return n
      }
      expect((await Promise.all([all(), insert(sql, name, 5), all()]))[0]).toBe(50)
    })
    expect(await read()).toEqual([1, 2, 5])
  })

  test('transaction() does not commit with a stream of it still open, of a savepoint neither', async () => {
    const pool = make({ max: 2 })
    const { name, read } = await makeTable(pool)
    const open = async (sql: PostgresSql): Promise<void> => {
      const writable = await sql.unsafe(`copy ${name} from stdin`).writable()
      writable.on('error', () => undefined)
      writable.write('1\n')
    }
    expect((await rejection(pool.transaction(open))).code).toBe('ERR_UNFINISHED')
    const nested = pool.transaction(async (sql) => {
      await rejection(sql.savepoint(open))
      await rejection(insert(sql, name, 2))
      await rejection(insert(pool.sql, name, 3))
    })
    expect((await rejection(nested)).code).toBe('ERR_UNFINISHED')
    const queued = pool.transaction((sql) => {
      void insert(sql, name, 4).then(undefined, () => undefined)
      const rows = sql`select generate_series(1, 9)`.cursor(1)[Symbol.asyncIterator]()
      void rows.next().then(undefined, () => undefined)
      return Promise.resolve()
    })
    expect((await rejection(queued)).code).toBe('ERR_UNFINISHED')
    expect(await read()).toEqual([])
    await until(() => pool.stats().leased === 0)
  })
})

const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000)
let state = seed
function random(below: number): number {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return Math.floor((state / 2 ** 32) * below)
}

/** What a transaction or savepoint is to do; made before anything runs, so that the seed decides it. */
type Step =
  | { do: 'insert'; with: number; awaited: boolean }
  | { do: 'pause' }
  | { do: 'scope'; with: number; steps: Step[]; rollback: boolean }
  | { do: 'together'; steps: Step[] }
  | { do: 'swallowed error' }
  | { do: 'conflict' }
  | { do: 'throw' }

function plan(depth: number): Step[] {
  return Array.from({ length: 1 + random(4) }, (): Step => {
    const kind = random(20)
    if (kind < 8) return { do: 'insert', with: random(3), awaited: random(5) > 0 }
    if (kind < 9) return { do: 'pause' }
    if (kind < 10) return { do: 'throw' }
    if (kind < 11) return { do: 'swallowed error' }
    if (kind < 12 && depth === 0) return { do: 'conflict' }
    if (depth > 3) return { do: 'pause' }
    if (kind < 17) return { do: 'scope', with: random(2), steps: plan(depth + 1), rollback: random(6) === 0 }
    return { do: 'together', steps: plan(depth + 1) }
  })
}

const thrown = new Error('thrown')

test(`transactions and savepoints leave in a table what a model of them says (SEED=${seed})`, async () => {
  const pool = make({ max: 4, connection: { client_min_messages: 'error' } })
  const { name } = await makeTable(pool)
  let last = 0
  const unexpected: unknown[] = []

  /** Does it, and returns what is in the table thanks to it, if what is around it commits. */
  const run = async (steps: readonly Step[], tags: readonly TransactionSql[], attempt: number): Promise<number[]> => {
    const sql = tags.at(-1)!
    const content: number[] = []
    const one = async (step: Step): Promise<void> => {
      switch (step.do) {
        case 'insert': {
          const a = ++last
          // Its own tag, one of those around it, or the pool's: it is the same.
          const query = insert([sql, tags[0]!, pool.sql][step.with]!, name, a)
          if (step.awaited) await query
          else void query.then(undefined, () => undefined)
          content.push(a)
          return
        }
        case 'pause':
          return await sleep(1)
        case 'throw':
          throw thrown
        case 'swallowed error':
          await rejection(sql`select 1/0`)
          return
        case 'conflict':
          if (attempt > 1) return
          return void (await sql.unsafe(`do $$ begin raise exception 'no' using errcode = '40001'; end $$`))
        case 'scope': {
          const inside = (inner: TransactionSql): Promise<number[]> => run(step.steps, [...tags, inner], attempt)
          const { rollback } = step
          const scope = step.with === 0 && !rollback ? sql.savepoint(inside) : pool.transaction(inside, { rollback })
          const inner = await scope.catch((error: Error & { code?: string }) => {
            if (error !== thrown && !['22012', 'ERR_LEASE_RELEASED'].includes(error.code ?? '')) throw error
            return []
          })
          if (!rollback) content.push(...inner)
          return
        }
        case 'together':
          await Promise.all(step.steps.map(one))
      }
    }
    for (const step of steps) await one(step)
    return content
  }

  const expected: number[] = []
  const unknown: number[][] = []
  let retried = 0
  const root = async (steps: readonly Step[]): Promise<void> => {
    let attempts = 0
    let content: number[] = []
    try {
      await pool.transaction(
        async (sql) => {
          if (++attempts > 1) retried++
          content = await run(steps, [sql], attempts)
        },
        { retries: 2, lazy: steps.length % 2 === 0 },
      )
      expected.push(...content)
    } catch (error) {
      if (error instanceof TransactionOutcomeUnknownError) unknown.push(content)
      else if (
        !['thrown', '22012', 'ERR_CONNECTION_LOST'].includes(
          (error as { code?: string }).code ?? (error as Error).message,
        )
      ) {
        unexpected.push(error)
      }
    }
  }

  let going = true
  const kill = async (): Promise<void> => {
    while (going) {
      await sleep(60)
      await db.admin`
        select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name} order by random() limit 1`
    }
  }
  const killer = kill()
  const plans = Array.from({ length: 250 }, () => plan(0))
  const worker = async (): Promise<void> => {
    for (let next = plans.pop(); next; next = plans.pop()) await root(next)
  }
  await Promise.all(Array.from({ length: 6 }, worker))
  going = false
  await killer
  expect(unexpected).toEqual([])
  const reader = make()
  const there = new Set((await reader.sql.unsafe(`select a from ${name}`)).map((row) => row['a'] as number))
  // All or nothing, whichever it was.
  for (const content of unknown) {
    const found = content.filter((a) => there.delete(a)).length
    expect([0, content.length]).toContain(found)
  }
  expect([...there].toSorted((a, b) => a - b)).toEqual(expected.toSorted((a, b) => a - b))
  expect(expected.length).toBeGreaterThan(50)
  expect(retried).toBeGreaterThan(3)
  await until(() => pool.stats().leased === 0)
}, 90_000)
