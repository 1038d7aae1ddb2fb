import { getEventListeners } from 'node:events'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import plain from 'postgres'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { ConnectionLostError, PoolClosedError, QueryCancelledError, QueryTimeoutError } from '../../src/errors.ts'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions, PostgresSql } from '../../src/postgres/index.ts'
import { Frames } from '../../src/postgres/frames.ts'
import { FakeClock } from '../../src/testing/index.ts'
import { DriverUnderTest, rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { hear } from '../support/events.ts'
import { poolFor, running } from '../support/given-back.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options: PostgresPoolOptions = {}): PostgresPool => poolFor(db, { max: 1, pipelining: 8, ...options })

// A statement is known by the place where it is written: each is written once.
const one = (sql: PostgresSql, n: number) => sql`select ${n}::int as n`
/** Answered when lock 7 is to be had. */
const waits = (sql: PostgresSql, n: number) => sql`select ${n}::int as n, pg_advisory_xact_lock(7)::text as seven`
/** Answered when lock 8 is to be had. */
const waitsToo = (sql: PostgresSql, n: number) => sql`select ${n}::int as n, pg_advisory_xact_lock(8)::text as eight`
/** Fails where it is divided by 0. */
const divides = (sql: PostgresSql, n: number, by: number) => sql`select ${n}::int / ${by}::int as n`

/** A session outside the pool. */
function another(): plain.Sql {
  const sql = plain(db.url, { max: 1, onnotice: () => undefined })
  onTestFinished(() => sql.end({ timeout: 0 }))
  return sql
}

/** Holds a lock, until it is told to let it go. */
async function hold(lock: 7 | 8): Promise<() => Promise<void>> {
  const holder = another()
  await holder`select pg_advisory_lock(${lock})`
  return async () => void (await holder`select pg_advisory_unlock(${lock})`)
}

/** Waits until a query waits for a lock. */
const blocked = (): Promise<void> =>
  until(async () => (await db.sessions()).some(({ wait }) => wait === 'advisory'), 'a query to be blocked')

interface Way {
  readonly port: number
  /** How many queries the clients have sent, by their Syncs. */
  readonly sent: number
  /** Requests to cancel wait until they are let through. */
  holdCancels: boolean
  /** How many of them wait. */
  readonly held: number
  /** Resolves when the server has closed the requests. */
  letCancels(): Promise<void>
  /** While this many have been sent, what the server says then is not passed on. */
  holdFrom: number
}

/** A way to the server that counts what passes; `cut` gives how long each piece of what the server says is. */
async function way(cut?: () => number): Promise<Way> {
  const heard: Frames[] = []
  const held: (() => Promise<void>)[] = []
  let holdCancels = false
  const server = await tcpServer((socket) => {
    socket.setNoDelay(true)
    socket.once('data', (first) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      const isCancel = first.length === 16 && first.readUInt32BE(4) === 80877102
      const pass = async (): Promise<void> => {
        upstream.write(first)
        socket.on('data', (chunk) => upstream.write(chunk))
        socket.on('end', () => upstream.end())
        await pump()
      }
      const pump = async (): Promise<void> => {
        for await (const chunk of upstream) {
          while (passed.sent >= passed.holdFrom) await nextTurn()
          for (let at = 0; at < chunk.length;) {
            const length = cut?.() ?? chunk.length
            socket.write(chunk.subarray(at, at + length))
            at += length
            if (cut) await nextTurn()
          }
        }
        socket.end()
      }
      if (isCancel && holdCancels) {
        held.push(pass)
        return
      }
      if (!isCancel) {
        const frames = new Frames()
        frames.sent(first)
        socket.on('data', (chunk) => frames.sent(chunk))
        heard.push(frames)
      }
      pass().catch(() => undefined)
    })
  })
  onTestFinished(() => server[Symbol.asyncDispose]())
  const passed: Way = {
    holdFrom: Infinity,
    port: (server.server.address() as AddressInfo).port,
    get sent() {
      return heard.reduce((sum, { asked }) => sum + asked, 0)
    },
    get holdCancels() {
      return holdCancels
    },
    set holdCancels(on: boolean) {
      holdCancels = on
    },
    get held() {
      return held.length
    },
    async letCancels() {
      holdCancels = false
      await Promise.all(held.splice(0).map((pass) => pass()))
    },
  }
  return passed
}

/** A pool of one connection on which the statements above are known, and what it sends. */
async function ready(options: PostgresPoolOptions = {}): Promise<{ pool: PostgresPool; passed: Way }> {
  const passed = await way()
  const pool = make({ port: passed.port, ...options })
  await one(pool.sql, 0)
  await waits(pool.sql, 0)
  await waitsToo(pool.sql, 0)
  await divides(pool.sql, 1, 1)
  return { pool, passed }
}

/** Waits until so many queries more have been sent. */
async function toSend(passed: Way, count: number, start: () => void): Promise<void> {
  const before = passed.sent
  start()
  await until(() => passed.sent >= before + count, `${count} queries to be sent`)
  expect(passed.sent).toBe(before + count)
}

const seven = (n: number): object[] => [{ n, seven: '' }]
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i)
const rowsOf = async (query: PromiseLike<readonly object[]>): Promise<object[]> => [...(await query)]

describe('what is answered', () => {
  test('queries are sent while those before them are unanswered, and no more than the option says', async () => {
    const { pool, passed } = await ready({ pipelining: 4 })
    const letSeven = await hold(7)
    const letEight = await hold(8)
    let all: Promise<object[]>[] = []
    await toSend(passed, 4, () => {
      all = [waits(pool.sql, 1), waitsToo(pool.sql, 2), ...range(8).map((n) => one(pool.sql, n))].map(rowsOf)
    })
    await until(() => pool.stats().waiting === 6)
    await blocked()
    const { acquires } = pool.stats()
    // One has been answered: one more goes out.
    await toSend(passed, 1, () => void letSeven())
    expect(await all[0]).toEqual(seven(1))
    await blocked()
    expect(pool.stats().waiting).toBe(5)
    await toSend(passed, 5, () => void letEight())
    const [, second, ...others] = await Promise.all(all)
    expect(second).toEqual([{ n: 2, eight: '' }])
    expect(others).toEqual(range(8).map((n) => [{ n }]))
    // It was lent once for all of them.
    expect(pool.stats()).toMatchObject({ acquires, opens: 1 })
  })

  const kinds: readonly ((sql: PostgresSql, n: number) => [made: PromiseLike<unknown>, expected: unknown])[] = [
    (sql, n) => [one(sql, n), [{ n }]],
    (sql, n) => [
      sql`select ${`${n} äß漢😀 \\ ' "`}::text as a, ${''}::text as b`,
      [{ a: `${n} äß漢😀 \\ ' "`, b: '' }],
    ],
    (sql, n) => [
      sql`select ${n % 2 === 0}::bool as even, ${n % 3 === 0} as third`,
      [{ even: n % 2 === 0, third: n % 3 === 0 }],
    ],
    (sql, n) => [sql`select ${(BigInt(n) + 2n ** 60n) as never} as big`, [{ big: String(BigInt(n) + 2n ** 60n) }]],
    (sql, n) => [
      sql`select ${n / 4}::float8 as quarter, ${-n}::int as minus`,
      [{ quarter: n / 4, minus: n === 0 ? 0 : -n }],
    ],
    (sql, n) => [sql`select ${n % 2 ? null : n}::int as a, ${null}::text as b`, [{ a: n % 2 ? null : n, b: null }]],
    (sql, n) => [sql`select ${n}::int, 'x'::text from generate_series(1, 3)`.values(), range(3).map(() => [n, 'x'])],
    (sql, n) => [sql`select ${n}::int as n`.raw(), [[Buffer.from(String(n))]]],
    (sql, n) => [sql`select ${n}::int as n where false`, []],
    (sql) => [sql`select 1 as without_parameters`, [{ without_parameters: 1 }]],
    (sql, n) => [
      sql`select g, ${n}::int as n from generate_series(1, 700) g`,
      range(700).map((g) => ({ g: g + 1, n })),
    ],
    (sql, n) => [sql`select repeat(${String(n % 10)}, 200000) as long`, [{ long: String(n % 10).repeat(200_000) }]],
    (sql, n) => {
      const seen: unknown[] = []
      const read = sql`select g, ${n}::int as n from generate_series(1, 3) g`.forEach((row) => void seen.push(row))
      return [(async () => (await read, seen))(), range(3).map((g) => ({ g: g + 1, n }))]
    },
    (sql, n) => [
      sql`with made as (select ${n}::int as n) insert into answered select n from made returning n`,
      [{ n }],
    ],
    (sql, n) => [sql`values (${n}::int, ${'b'}::text)`, [{ column1: n, column2: 'b' }]],
  ]

  /** Every kind once, and then all of them many times at once. */
  async function askAll(pool: PostgresPool, times: number): Promise<void> {
    await pool.sql`create table if not exists answered (n int)`
    for (const kind of kinds) await kind(pool.sql, 0)[0]
    const asked = range(times * kinds.length).map(
      (n) => kinds[n % kinds.length]?.(pool.sql, n) ?? [Promise.resolve(), 0],
    )
    const answers = await Promise.all(asked.map(async ([made]) => await made))
    for (const [i, answer] of answers.entries()) {
      // Rows are more than arrays.
      expect(Array.isArray(answer) ? [...(answer as unknown[])] : answer, `of ${i}`).toEqual(asked[i]?.[1])
    }
  }

  test('each of many queries at once gets its own rows, on connections that are lent seldom', async () => {
    const pool = make()
    await askAll(pool, 20)
    expect(pool.stats().opens).toBe(1)
    // Without sharing it would be as many as there are queries.
    expect(pool.stats().acquires).toBeLessThan(kinds.length * 10)
    const { count } = (await pool.sql`select count(*)::int from answered`)[0] as unknown as { count: number }
    expect(count).toBe(21)
    await pool.sql`drop table answered`
  })

  test('each gets its own rows on more connections than one', async () => {
    const pool = make({ max: 3, pipelining: 5 })
    await askAll(pool, 20)
    await pool.sql`drop table answered`
  })

  test.each([1, 3, 7])('answers in pieces of %i bytes at the most are told apart', async (most) => {
    let turn = 0
    const passed = await way(() => 1 + (turn++ % most))
    const pool = make({ port: passed.port })
    const text = (n: number) => pool.sql`select g, ${'ä'.repeat(n % 9)}::text as t from generate_series(1, ${n % 4}) g`
    await one(pool.sql, 0)
    await text(1)
    await divides(pool.sql, 1, 1)
    const { acquires } = pool.stats()
    const answers = await Promise.all(
      range(40).map(async (n) =>
        n % 5 === 4
          ? (await rejection(divides(pool.sql, n, 0))).code
          : await rowsOf(n % 2 ? text(n) : one(pool.sql, n)),
      ),
    )
    const expected = range(40).map((n) => {
      if (n % 5 === 4) return '22012'
      return n % 2 ? range(n % 4).map((g) => ({ g: g + 1, t: 'ä'.repeat(n % 9) })) : [{ n }]
    })
    expect(answers).toEqual(expected)
    expect(pool.stats().acquires).toBeLessThan(acquires + 20)
  })

  test('transformations and types of the user are applied to each answer', async () => {
    const pool = make({
      transform: { ...plain.toCamel, undefined: null },
      types: { bigint: plain.BigInt },
    })
    const ask = (n: number) => pool.sql`select ${n}::int as the_number, 5::int8 as the_big`
    await ask(0)
    const { acquires } = pool.stats()
    const answers = await Promise.all(range(6).map((n) => rowsOf(ask(n))))
    expect(answers).toEqual(range(6).map((n) => [{ theNumber: n, theBig: 5n }]))
    expect(pool.stats().acquires).toBe(acquires + 1)
  })
})

describe('errors', () => {
  test('an error reaches its own caller, and those around get their rows', async () => {
    const { pool, passed } = await ready({ pipelining: 10 })
    await pool.sql`create table unique_once (n int primary key)`
    const insert = (n: number) => pool.sql`insert into unique_once values (${n}) returning n`
    const cast = (text: string) => pool.sql`select ${text}::text::int as n`
    const rows = (bad: number) => pool.sql`select 1 / (g - ${bad}::int) as x from generate_series(1, 3) g`
    await insert(0)
    await cast('1')
    await rows(0)
    const letGo = await hold(7)
    let all: Promise<unknown>[] = []
    await toSend(passed, 10, () => {
      all = [
        rowsOf(waits(pool.sql, 1)),
        rejection(divides(pool.sql, 1, 0)),
        rowsOf(insert(1)),
        rejection(insert(0)),
        rowsOf(one(pool.sql, 4)),
        rejection(cast('five')),
        rowsOf(insert(2)),
        rowsOf(cast('6')),
        rejection(rows(3)),
        rowsOf(one(pool.sql, 9)),
      ]
    })
    await letGo()
    const answers = (await Promise.all(all)).map((answer) =>
      answer instanceof Error ? (answer as { code?: string }).code : answer,
    )
    expect(answers).toEqual([
      [{ n: 1, seven: '' }],
      '22012',
      [{ n: 1 }],
      '23505',
      [{ n: 4 }],
      '22P02',
      [{ n: 2 }],
      [{ n: 6 }],
      '22012',
      [{ n: 9 }],
    ])
    expect(await rowsOf(pool.sql`select n from unique_once order by n`)).toEqual([{ n: 0 }, { n: 1 }, { n: 2 }])
  })

  test('what is written around an error takes effect, each once', async () => {
    const pool = make()
    await pool.sql`create table tallied (n int, times int)`
    const insert = (n: number) => pool.sql`insert into tallied values (${n}, 0)`
    const count = (n: number) => pool.sql`update tallied set times = times + 1 where n = ${n}`
    await insert(-1)
    await count(-1)
    await divides(pool.sql, 1, 1)
    const { acquires } = pool.stats()
    const all = range(60).map((n) => [insert(n), rejection(divides(pool.sql, n, 0)), count(n)])
    await Promise.all(all.flat())
    expect(pool.stats().acquires).toBe(acquires + 1)
    const [tally] = await pool.sql`
      select count(*)::int as rows, count(distinct n)::int as numbers, min(times) as least, max(times) as most from tallied`
    expect(tally).toEqual({ rows: 61, numbers: 61, least: 1, most: 1 })
  })

  test('the error tells the query and the parameters of its own', async () => {
    const { pool } = await ready()
    const errors = await Promise.all([
      rejection(divides(pool.sql, 1, 0)),
      rejection(divides(pool.sql, 2, 0)),
      rejection(divides(pool.sql, 3, 0)),
    ])
    expect(errors.map((error) => (error as unknown as { parameters: unknown[] }).parameters)).toEqual(
      range(3).map((n) => [String(n + 1), '0']),
    )
    expect(errors.every(({ stack }) => stack?.includes('pipelining.test.ts'))).toBe(true)
  })

  test('a forEach() that throws is its own failure', async () => {
    const { pool } = await ready()
    const reason = new Error('enough')
    const each = () =>
      pool.sql`select g from generate_series(1, 3) g`.forEach(({ g }) => {
        if (g === 2) throw reason
      })
    await rejection(each())
    const [first, thrown, last] = await Promise.all([
      rowsOf(one(pool.sql, 1)),
      rejection(each()),
      rowsOf(one(pool.sql, 3)),
    ])
    expect([first, thrown, last]).toEqual([[{ n: 1 }], reason, [{ n: 3 }]])
  })
})

describe('plans that become out of date', () => {
  test('queries that were sent with an old plan all answer with the new column, and true stays true', async () => {
    const { pool, passed } = await ready()
    await pool.sql`create table replanned (a int, yes bool)`
    const insert = (a: number, yes: boolean) => pool.sql`insert into replanned values (${a}, ${yes}) returning *`
    const read = (yes: boolean, text: string | null) =>
      pool.sql`select *, ${yes} as given, ${text}::text as text from replanned where yes = ${yes}`
    await insert(1, true)
    await insert(2, false)
    await read(true, 'x')
    const letGo = await hold(7)
    let all: Promise<object[]>[] = []
    await toSend(passed, 7, () => {
      all = [
        waits(pool.sql, 1),
        read(true, 'first'),
        read(false, null),
        one(pool.sql, 3),
        insert(3, true),
        one(pool.sql, 4),
        read(true, ''),
      ].map(rowsOf)
    })
    await another()`alter table replanned add column added int default 5`
    await letGo()
    const [first, two, three, four, inserted, six, last] = await Promise.all(all)
    expect(first).toEqual([{ n: 1, seven: '' }])
    expect(two?.[0]).toEqual({ a: 1, yes: true, added: 5, given: true, text: 'first' })
    expect(three).toEqual([{ a: 2, yes: false, added: 5, given: false, text: null }])
    expect(four).toEqual([{ n: 3 }])
    expect(inserted).toEqual([{ a: 3, yes: true, added: 5 }])
    expect(six).toEqual([{ n: 4 }])
    expect(last?.[0]).toEqual({ a: 1, yes: true, added: 5, given: true, text: '' })
    expect(await rowsOf(pool.sql`select a from replanned order by a`)).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }])
    expect(pool.stats().opens).toBe(1)
    // They are known again, under their new names.
    const { acquires } = pool.stats()
    await read(true, 'x')
    await Promise.all(range(5).map(() => read(true, 'x')))
    expect(pool.stats().acquires).toBe(acquires + 2)
  })

  test('the first of those that are sent may have the old plan, too', async () => {
    const pool = make()
    await pool.sql`create table stale_first (a int, yes bool)`
    const insert = (a: number, yes: boolean) => pool.sql`insert into stale_first values (${a}, ${yes}) returning *`
    await insert(0, true)
    const ddl = another()
    for (const i of range(10)) {
      await ddl.unsafe(`alter table stale_first add column c${i} int default ${i}`)
      const added = Object.fromEntries(range(i + 1).map((c) => [`c${c}`, c]))
      const made = await Promise.all(range(6).map((n) => rowsOf(insert(10 * i + n + 1, n % 2 === 0))))
      expect(made).toEqual(range(6).map((n) => [{ a: 10 * i + n + 1, yes: n % 2 === 0, ...added }]))
    }
    const [tally] = await pool.sql`select count(*)::int as rows, count(distinct a)::int as numbers from stale_first`
    expect(tally).toEqual({ rows: 61, numbers: 61 })
    expect(pool.stats().opens).toBe(1)
  })

  test('one that postgres.js has prepared anew is sent ahead under its new name', async () => {
    const pool = make()
    await pool.sql`create table anew (a int)`
    const read = () => pool.sql`select * from anew`
    const ddl = another()
    await read()
    for (const i of range(3)) {
      await ddl.unsafe(`alter table anew add column c${i} int`)
      await read()
      await read()
      await Promise.all(range(5).map(read))
    }
    expect(pool.stats().opens).toBe(1)
  })

  test('one that is being prepared anew has none sent behind it under its old name', async () => {
    const { pool } = await ready()
    await pool.sql`create table twice_prepared as select 1 as a`
    const read = () => pool.sql`select *, pg_advisory_xact_lock(8)::text as eight from twice_prepared`
    await read()
    await another()`alter table twice_prepared add column b int default 2`
    const letGo = await hold(8)
    const first = rowsOf(read())
    await blocked()
    const second = rowsOf(read())
    await until(() => pool.stats().waiting === 1)
    await letGo()
    expect(await Promise.all([first, second])).toEqual(range(2).map(() => [{ a: 1, b: 2, eight: '' }]))
    expect(pool.stats().opens).toBe(1)
  })

  test('one that is run again has none sent behind it, since it may be prepared anew', async () => {
    const { pool, passed } = await ready({ clock: new FakeClock() })
    await pool.sql`create table again as select 1 as a`
    const read = () => pool.sql`select * from again`
    await read()
    const letGo = await hold(7)
    let first: Promise<object[]>[] = []
    await toSend(passed, 3, () => {
      first = [waits(pool.sql, 1), read(), one(pool.sql, 2)].map(rowsOf)
    })
    await blocked()
    await another()`alter table again add column b int default 2`
    const { sent } = passed
    passed.holdFrom = sent + 1
    await letGo()
    await until(() => passed.sent > sent)
    // What has been answered meanwhile is known again, and could be sent.
    const next = rowsOf(one(pool.sql, 3))
    await until(() => pool.stats().waiting === 1 || passed.sent > sent + 1)
    passed.holdFrom = Infinity
    expect(await Promise.all([...first, next])).toEqual([seven(1), [{ a: 1, b: 2 }], [{ n: 2 }], [{ n: 3 }]])
    expect(pool.stats().opens).toBe(1)
  })

  test('a table that is gone, and one of another type, are errors of those that ask for it', async () => {
    const { pool, passed } = await ready()
    await pool.sql`create table dropped (a int)`
    const read = () => pool.sql`select * from dropped`
    const insert = (a: number) => pool.sql`insert into dropped values (${a})`
    await read()
    await insert(1)
    const letGo = await hold(7)
    const codes = async (): Promise<unknown[]> => {
      const all = [waits(pool.sql, 1), read(), one(pool.sql, 2), insert(2), one(pool.sql, 3)]
      const settled = await Promise.allSettled(all.map(rowsOf))
      return settled.map((each) => (each.status === 'fulfilled' ? 'rows' : (each.reason as { code: string }).code))
    }
    let asked: Promise<unknown[]> = Promise.resolve([])
    await toSend(passed, 5, () => {
      asked = codes()
    })
    await another()`drop table dropped`
    await letGo()
    expect(await asked).toEqual(['rows', '42P01', 'rows', '42P01', 'rows'])
    expect(pool.stats().opens).toBe(1)
  })
})

describe('statements of one text', () => {
  test('describe() between, and the same text at two places', async () => {
    const pool = make()
    const here = (n: number) => pool.sql`select ${n}::int as same`
    const there = (n: number) => pool.sql`select ${n}::int as same`
    await here(0)
    await there(0)
    for (const i of range(20)) {
      const [a, b, described, c, d, e] = await Promise.all([
        here(i),
        there(i + 1),
        i % 2 ? here(5).describe() : there(5).describe(),
        here(i + 2),
        there(i + 3),
        here(i + 4),
      ])
      expect([a, b, c, d, e].map((rows) => rows[0]?.['same'] as unknown)).toEqual([i, i + 1, i + 2, i + 3, i + 4])
      expect(described.columns[0]?.name).toBe('same')
    }
    await Promise.all([rejection(pool.sql`select nonsense`.describe()), here(1), there(2), here(3)])
    expect(pool.stats().opens).toBe(1)
  })

  test('one place with parameters of one type and of another is several statements', async () => {
    const pool = make()
    const show = (value: string | number | boolean | bigint | null) => pool.sql`select ${value as never}::text as shown`
    const given = ['a', 1.5, true, 7n, null, '', false, -3n, 2, 'true']
    for (const value of given) await show(value)
    const { acquires } = pool.stats()
    const many = range(50).map((i) => given[(7 * i) % given.length] ?? null)
    const shown = await Promise.all(many.map(async (value) => (await show(value))[0]?.['shown'] as unknown))
    expect(shown).toEqual(many.map((value) => (value === null ? null : String(value))))
    expect(pool.stats().acquires).toBe(acquires + 1)
  })

  test('a lease that has prepared or described the same text leaves it right for those who share', async () => {
    const pool = make()
    const ask = (n: number, sql: PostgresSql = pool.sql) => sql`select ${n}::int as leased`
    for (const i of range(5)) {
      const [, ...answers] = await Promise.all([
        pool.use(async (sql) => {
          await ask(0, sql)
          await ask(0, sql).describe()
          await sql.unsafe('deallocate all')
        }),
        ...range(6).map((n) => ask(n + i)),
      ])
      expect(answers.map((rows) => rows[0]?.['leased'] as unknown)).toEqual(range(6).map((n) => n + i))
    }
  })
})

const codeOf = (error: unknown): unknown => (error as { code?: unknown }).code

describe('ending queries', () => {
  test.each([
    ['the first', 0],
    ['one in the middle', 2],
    ['the last', 4],
  ])('cancel() of %s rejects that one, and no other', async (_, which) => {
    const { pool, passed } = await ready()
    const letGo = await hold(7)
    const queries = [waits(pool.sql, 0), one(pool.sql, 1), one(pool.sql, 2), one(pool.sql, 3), one(pool.sql, 4)]
    let settled: Promise<PromiseSettledResult<object[]>[]> = Promise.resolve([])
    await toSend(passed, 5, () => {
      settled = Promise.allSettled(queries.map(rowsOf))
    })
    await blocked()
    queries[which]?.cancel()
    // One whose turn has not come rejects at once.
    if (which > 0) expect(await rejection(queries[which] as PromiseLike<unknown>)).toBeInstanceOf(QueryCancelledError)
    else expect(codeOf(await rejection(queries[0] as PromiseLike<unknown>))).toBe('57014')
    await letGo()
    const answers = (await settled).map((each) => (each.status === 'fulfilled' ? each.value : codeOf(each.reason)))
    const expected: unknown[] = [seven(0), [{ n: 1 }], [{ n: 2 }], [{ n: 3 }], [{ n: 4 }]]
    expected[which] = '57014'
    expect(answers).toEqual(expected)
    expect(pool.stats().opens).toBe(1)
  })

  test('one that was cancelled before its turn is cancelled on the server when that has come', async () => {
    const { pool, passed } = await ready()
    const letGo = await hold(7)
    // Nobody lets go of the other lock: only a request to cancel ends the second one.
    await hold(8)
    const second = waitsToo(pool.sql, 2)
    let all: Promise<object[]>[] = []
    await toSend(passed, 3, () => {
      all = [waits(pool.sql, 1), second, one(pool.sql, 3)].map(rowsOf)
    })
    const cancelled = rejection(all[1] as Promise<unknown>)
    second.cancel()
    expect(await cancelled).toBeInstanceOf(QueryCancelledError)
    await letGo()
    expect(await all[0]).toEqual(seven(1))
    expect(await all[2]).toEqual([{ n: 3 }])
    expect(pool.stats().opens).toBe(1)
  })

  test('one that was cancelled is over once: the connection stays leased for those behind it', async () => {
    const { pool, passed } = await ready()
    const letSeven = await hold(7)
    const letEight = await hold(8)
    const second = one(pool.sql, 2)
    let all: Promise<object[]>[] = []
    await toSend(passed, 3, () => {
      all = [waits(pool.sql, 1), second, waitsToo(pool.sql, 3)].map(rowsOf)
    })
    const cancelled = rejection(all[1] as Promise<unknown>)
    second.cancel()
    expect(await cancelled).toBeInstanceOf(QueryCancelledError)
    await letSeven()
    expect(await all[0]).toEqual(seven(1))
    await blocked()
    expect(pool.stats()).toMatchObject({ leased: 1, open: 1 })
    await letEight()
    expect(await all[2]).toEqual([{ n: 3, eight: '' }])
    expect(pool.stats()).toMatchObject({ opens: 1, badReturns: 0 })
  })

  test('a request to cancel that comes so late that it hits the next one costs nobody an answer', async () => {
    const { pool, passed } = await ready()
    await pool.sql`create table hit_late (n int)`
    const insert = (n: number) => pool.sql`
      insert into hit_late select ${n}::int from (select pg_advisory_xact_lock(8)) as eight returning n`
    await insert(0)
    const letSeven = await hold(7)
    const letEight = await hold(8)
    const head = waits(pool.sql, 1)
    let all: Promise<object[]>[] = []
    await toSend(passed, 4, () => {
      all = [head, insert(2), one(pool.sql, 3), insert(4)].map(rowsOf)
    })
    passed.holdCancels = true
    head.cancel()
    await until(() => passed.held === 1)
    await letSeven()
    expect(await all[0]).toEqual(seven(1))
    await blocked()
    await passed.letCancels()
    // The first of the two was hit: it runs once more, behind those that have been sent.
    expect(await all[2]).toEqual([{ n: 3 }])
    await letEight()
    expect(await all[1]).toEqual([{ n: 2 }])
    expect(await all[3]).toEqual([{ n: 4 }])
    expect(await rowsOf(pool.sql`select n from hit_late order by n`)).toEqual([{ n: 0 }, { n: 2 }, { n: 4 }])
    expect(pool.stats().opens).toBe(1)
  })

  test('nothing more is sent while a request to cancel is under way that could hit it', async () => {
    const { pool, passed } = await ready({ clock: new FakeClock() })
    const letSeven = await hold(7)
    const letEight = await hold(8)
    const head = waits(pool.sql, 1)
    let all: Promise<object[]>[] = []
    await toSend(passed, 2, () => {
      all = [head, waitsToo(pool.sql, 2)].map(rowsOf)
    })
    passed.holdCancels = true
    head.cancel()
    await until(() => passed.held === 1)
    const { sent } = passed
    await letSeven()
    expect(await all[0]).toEqual(seven(1))
    // The one before it is not the one that was cancelled.
    const next = rowsOf(one(pool.sql, 3))
    await until(() => pool.stats().waiting === 1 || passed.sent > sent)
    expect(passed.sent).toBe(sent)
    await letEight()
    expect(await all[1]).toEqual([{ n: 2, eight: '' }])
    await passed.letCancels()
    expect(await next).toEqual([{ n: 3 }])
    expect(pool.stats().opens).toBe(1)
  })

  test('a request to cancel that comes late gives no row to a forEach() a second time', async () => {
    const { pool, passed } = await ready()
    const letSeven = await hold(7)
    const letEight = await hold(8)
    const seen: number[] = []
    const each = (last: number) => pool.sql<{ g: number }[]>`
        select g, case when g = ${last}::int then pg_advisory_xact_lock(8)::text end as t from generate_series(1, 3000) g`
    await each(-1)
    const head = waits(pool.sql, 1).execute()
    const reading = each(2_900).forEach(({ g }) => void seen.push(g))
    await blocked()
    passed.holdCancels = true
    head.cancel()
    await until(() => passed.held === 1)
    await letSeven()
    expect(await rowsOf(head)).toEqual(seven(1))
    // Sent behind, it would have read some rows, and be hit; as it is, it waits until nothing can hit it.
    await until(() => seen.length > 100 || pool.stats().waiting > 0)
    await passed.letCancels()
    await letEight()
    await reading
    expect(seen).toEqual(range(3_000).map((g) => g + 1))
  })

  test('deadlines end the queries that they are for', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock })
    const letGo = await hold(7)
    const { sql } = pool.with({ timeoutMs: 100 })
    let settled: Promise<PromiseSettledResult<object[]>[]> = Promise.resolve([])
    await toSend(passed, 5, () => {
      const queries = [waits(pool.sql, 0), one(sql, 1), one(pool.sql, 2), one(sql, 3), one(pool.sql, 4)]
      settled = Promise.allSettled(queries.map(rowsOf))
    })
    await clock.advance(100)
    await letGo()
    const answers = (await settled).map((each) => (each.status === 'fulfilled' ? each.value : (each.reason as unknown)))
    const late = expect.objectContaining({ code: 'ERR_QUERY_TIMEOUT', phase: 'run', timeoutMs: 100 })
    expect(answers).toEqual([seven(0), late, [{ n: 2 }], late, [{ n: 4 }]])
    const letSeven = await hold(7)
    const behind = waits(sql, 5)
    const [first, next] = [rejection(behind), rowsOf(one(pool.sql, 6))]
    await blocked()
    await clock.advance(100)
    expect(await first).toBeInstanceOf(QueryTimeoutError)
    expect(await next).toEqual([{ n: 6 }])
    await letSeven()
    expect(pool.stats().opens).toBe(1)
  })

  test('signals end the queries that they are for, with their reason', async () => {
    const { pool, passed } = await ready()
    const letGo = await hold(7)
    const controller = new AbortController()
    const { sql } = pool.with({ signal: controller.signal })
    let settled: Promise<PromiseSettledResult<object[]>[]> = Promise.resolve([])
    await toSend(passed, 4, () => {
      settled = Promise.allSettled([waits(sql, 0), one(pool.sql, 1), one(sql, 2), one(pool.sql, 3)].map(rowsOf))
    })
    await blocked()
    const reason = new Error('the client has left')
    controller.abort(reason)
    const answers = (await settled).map((each) => (each.status === 'fulfilled' ? each.value : (each.reason as unknown)))
    await letGo()
    expect(answers).toEqual([reason, [{ n: 1 }], reason, [{ n: 3 }]])
    expect(getEventListeners(controller.signal, 'abort')).toEqual([])
    expect(pool.stats().opens).toBe(1)
  })

  test('a signal whose reason is another query’s cancellation is no reason to run anything twice', async () => {
    const { pool, passed } = await ready()
    await pool.sql`create table run_once (n int)`
    const insert = (n: number, sql: PostgresSql = pool.sql) => sql`
      insert into run_once select ${n}::int from (select pg_advisory_xact_lock(8)) as eight`
    await insert(0)
    await hold(7)
    const letEight = await hold(8)
    const controller = new AbortController()
    const { sql } = pool.with({ signal: controller.signal })
    const head = waits(pool.sql, 1)
    // What has failed for one stops the others.
    const first = rejection(head).then((error) => (controller.abort(error), error))
    let others: Promise<unknown>[] = []
    await toSend(passed, 3, () => {
      others = [rejection(insert(2, sql)), rowsOf(one(pool.sql, 3))]
    })
    await blocked()
    head.cancel()
    const error = await first
    expect(codeOf(error)).toBe('57014')
    expect(await others[0]).toBe(error)
    expect(await others[1]).toEqual([{ n: 3 }])
    await letEight()
    expect(await rowsOf(pool.sql`select n from run_once`)).toEqual([{ n: 0 }])
    expect(pool.stats().opens).toBe(1)
  })

  test('a session that the server ends is lost to all that were sent on it, and to nobody else', async () => {
    const { pool, passed } = await ready()
    await hold(7)
    let all: Promise<Error>[] = []
    await toSend(passed, 6, () => {
      all = [waits(pool.sql, 0), ...range(5).map((n) => one(pool.sql, n))].map(rejection)
    })
    await blocked()
    const pid = await running(db, 'pg_advisory_xact_lock(7)')
    const { waiting } = pool.stats()
    await db.admin`select pg_terminate_backend(${pid as number}::int)`
    const errors = await Promise.all(all)
    expect(waiting).toBe(0)
    expect(errors.every((error) => error instanceof ConnectionLostError)).toBe(true)
    expect(errors.map(({ cause }) => codeOf(cause))).toEqual(errors.map(() => '57P01'))
    expect(await rowsOf(one(pool.sql, 7))).toEqual([{ n: 7 }])
    expect(await Promise.all(range(20).map((n) => rowsOf(one(pool.sql, n))))).toEqual(range(20).map((n) => [{ n }]))
    expect(pool.stats().opens).toBe(2)
  })

  test('what waits for a connection that is lost goes to the next one', async () => {
    const { pool } = await ready({ pipelining: 3 })
    await hold(7)
    const lost = [waits(pool.sql, 0), one(pool.sql, 1), one(pool.sql, 2)].map(rejection)
    const waiting = range(10).map((n) => rowsOf(one(pool.sql, n)))
    await until(() => pool.stats().waiting === 10)
    await blocked()
    const pid = await running(db, 'pg_advisory_xact_lock(7)')
    await db.admin`select pg_terminate_backend(${pid as number}::int)`
    expect((await Promise.all(lost)).map(codeOf)).toEqual(lost.map(() => 'ERR_CONNECTION_LOST'))
    expect(await Promise.all(waiting)).toEqual(range(10).map((n) => [{ n }]))
  })
})

interface Alone {
  readonly what: string
  /** Resolves with what `answer` is, where `sql` has lock 7 meanwhile if it asks for it. */
  readonly run: (pool: PostgresPool) => PromiseLike<unknown>
  readonly answer: unknown
}

const readable = async (pool: PostgresPool): Promise<string> => {
  let text = ''
  for await (const chunk of await pool.sql`copy (select pg_advisory_xact_lock(7)::text || 'x') to stdout`.readable()) {
    text += String(chunk)
  }
  return text
}
const portions = async (pool: PostgresPool): Promise<number[]> => {
  const seen: number[] = []
  for await (const rows of pool.sql<{ g: number }[]>`
    select g, pg_advisory_xact_lock(7)::text from generate_series(1, 5) g`.cursor(2)) {
    seen.push(...rows.map(({ g }) => g))
  }
  return seen
}
const lock = `pg_advisory_xact_lock(7)::text as seven`
const alone: readonly Alone[] = [
  { what: 'a transaction', run: (pool) => pool.transaction((sql) => rowsOf(waits(sql, 1))), answer: seven(1) },
  { what: 'a lease', run: (pool) => pool.use((sql) => rowsOf(waits(sql, 1))), answer: seven(1) },
  { what: 'a text', run: (pool) => rowsOf(pool.sql.unsafe(`select 1 as n, ${lock}`)), answer: seven(1) },
  {
    what: 'a text with parameters',
    run: (pool) => rowsOf(pool.sql.unsafe(`select $1::int as n, ${lock}`, [1])),
    answer: seven(1),
  },
  {
    what: 'several statements',
    run: async (pool) => (await pool.sql.unsafe(`select 1 as n; select ${lock}`)).length,
    answer: 2,
  },
  {
    what: 'simple()',
    run: (pool) => rowsOf(pool.sql`select 1 as n, pg_advisory_xact_lock(7)::text as seven`.simple()),
    answer: seven(1),
  },
  { what: 'a cursor', run: portions, answer: [1, 2, 3, 4, 5] },
  { what: 'a COPY', run: readable, answer: 'x\n' },
  {
    what: 'a setting',
    run: (pool) =>
      rowsOf(pool.sql`select set_config('a.b', ${'c'}, true) as set, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ set: 'c', seven: '' }],
  },
  {
    what: 'a lock of the session',
    run: (pool) => rowsOf(pool.sql`select pg_advisory_lock(9)::text as nine, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ nine: '', seven: '' }],
  },
  {
    what: 'a time',
    run: (pool) => rowsOf(pool.sql`select ${new Date(0)}::timestamptz as at, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ at: new Date(0), seven: '' }],
  },
  {
    what: 'bytes',
    run: (pool) => rowsOf(pool.sql`select ${Buffer.from('ab')}::bytea as b, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ b: Buffer.from('ab'), seven: '' }],
  },
  {
    what: 'an array',
    run: (pool) =>
      rowsOf(pool.sql`select ${pool.sql.array([1, 2])}::int[] as list, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ list: [1, 2], seven: '' }],
  },
  {
    what: 'JSON',
    run: (pool) =>
      rowsOf(pool.sql`select ${pool.sql.json({ a: 1 })}::jsonb as json, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ json: { a: 1 }, seven: '' }],
  },
  {
    what: 'a fragment',
    run: (pool) => rowsOf(pool.sql`select ${pool.sql`2 + ${3}::int`} as five, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ five: 5, seven: '' }],
  },
  {
    what: 'a name',
    run: (pool) => rowsOf(pool.sql`select 1 as ${pool.sql('a name')}, pg_advisory_xact_lock(7)::text as seven`),
    answer: [{ 'a name': 1, seven: '' }],
  },
  {
    what: 'a string that is very long',
    run: (pool) =>
      rowsOf(pool.sql`select length(${'x'.repeat(100_000)}) as n, pg_advisory_xact_lock(7)::text as seven`),
    answer: seven(100_000),
  },
  {
    what: 'a statement of another kind',
    run: async (pool) => (await pool.sql`explain analyze select pg_advisory_xact_lock(7)`).length > 0,
    answer: true,
  },
  {
    what: 'a block of code',
    run: async (pool) => (await pool.sql`do $$ begin perform pg_advisory_xact_lock(7); end $$`).length,
    answer: 0,
  },
]

describe('what has its connection to itself', () => {
  test.each(alone)('$what is not sent behind another query, and none behind it', async ({ run, answer }) => {
    const { pool, passed } = await ready()
    // From the second time on it could be known.
    expect(await run(pool)).toEqual(answer)
    let letGo = await hold(7)
    let first: Promise<object[]> = Promise.resolve([])
    await toSend(passed, 1, () => {
      first = rowsOf(waits(pool.sql, 1))
    })
    let sent = passed.sent
    let ran = Promise.resolve(run(pool))
    await until(() => pool.stats().waiting === 1)
    // It may be overtaken by nobody.
    const last = rowsOf(one(pool.sql, 3))
    await until(() => pool.stats().waiting === 2)
    expect(passed.sent).toBe(sent)
    await letGo()
    expect(await first).toEqual(seven(1))
    expect(await ran).toEqual(answer)
    expect(await last).toEqual([{ n: 3 }])

    letGo = await hold(7)
    ran = Promise.resolve(run(pool))
    await blocked()
    sent = passed.sent
    const behind = rowsOf(one(pool.sql, 4))
    await until(() => pool.stats().waiting === 1)
    expect(passed.sent).toBe(sent)
    await letGo()
    expect(await ran).toEqual(answer)
    expect(await behind).toEqual([{ n: 4 }])
  })

  test('a statement that is not known yet is not sent ahead, and has others behind it', async () => {
    const { pool, passed } = await ready()
    const letGo = await hold(7)
    const first = rowsOf(pool.sql`select ${1}::int as n, pg_advisory_xact_lock(7)::text as seven`)
    await blocked()
    let second: Promise<object[]> = Promise.resolve([])
    await toSend(passed, 1, () => {
      second = rowsOf(one(pool.sql, 2))
    })
    const third = rowsOf(pool.sql`select ${3}::int as n, 'new' as text`)
    await until(() => pool.stats().waiting === 1)
    await letGo()
    expect(await Promise.all([first, second, third])).toEqual([seven(1), [{ n: 2 }], [{ n: 3, text: 'new' }]])
  })

  test('without prepared statements nothing is sent ahead, and all is answered', async () => {
    const pool = make({ prepare: false })
    await one(pool.sql, 0)
    const { acquires } = pool.stats()
    expect(await Promise.all(range(9).map((n) => rowsOf(one(pool.sql, n))))).toEqual(range(9).map((n) => [{ n }]))
    expect(pool.stats().acquires).toBe(acquires + 9)
  })

  test('values that a type of the user’s writes are not sent ahead', async () => {
    const written: unknown[] = []
    const pool = make({
      types: {
        text: {
          to: 25,
          from: [25],
          serialize: (value: unknown) => (written.push(value), `<${String(value)}>`),
          parse: (text: string) => text,
        },
      },
    })
    const ask = (text: string) => pool.sql`select ${text}::text as text`
    await ask('first')
    const { acquires } = pool.stats()
    const answers = await Promise.all(range(5).map((n) => rowsOf(ask(String(n)))))
    expect(answers).toEqual(range(5).map((n) => [{ text: `<${n}>` }]))
    expect(written).toEqual(['first', '0', '1', '2', '3', '4'])
    expect(pool.stats().acquires).toBe(acquires + 5)
  })
})

/** Takes its time, so that answers come one by one: with others behind it, its connection is never at rest. */
const naps = (sql: PostgresSql, n: number) => sql`select ${n}::int as n, pg_sleep(0.001)::text as napped`

/** Single queries without a pause, some at a time, until it is stopped. */
function stream(pool: PostgresPool, atATime = 6): { readonly begun: number; stop(): Promise<unknown[]> } {
  let begun = 0
  let stopped = false
  const wrong: unknown[] = []
  const ask = async (): Promise<void> => {
    while (!stopped) {
      const n = ++begun
      try {
        const rows = await rowsOf(naps(pool.sql, n))
        if (JSON.stringify(rows) !== JSON.stringify([{ n, napped: '' }])) wrong.push({ n, rows })
      } catch (error) {
        wrong.push(error)
        // A promise that is rejected at once would leave no turn to anybody.
        await nextTurn()
      }
    }
  }
  const all = range(atATime).map(ask)
  onTestFinished(async () => {
    stopped = true
    await Promise.all(all)
  })
  return {
    get begun() {
      return begun
    },
    async stop() {
      stopped = true
      await Promise.all(all)
      return wrong
    },
  }
}

describe('taking turns', () => {
  test.each([
    ['acquire()', async (pool: PostgresPool) => (await pool.acquire()).release()],
    ['transaction()', (pool: PostgresPool) => pool.transaction((sql) => sql`select 1`)],
    ['a text', (pool: PostgresPool) => pool.sql.unsafe('select 1; select 2')],
  ] as const)('%s is not overtaken by queries that keep coming', async (_, run) => {
    const { pool } = await ready()
    const asked = stream(pool)
    await until(() => asked.begun > 100)
    for (let i = 0; i < 20; i++) {
      const { begun } = asked
      await run(pool)
      // All six are begun again when they have been answered, and wait behind it; then some have been answered again.
      expect(asked.begun - begun).toBeLessThanOrEqual(18)
      await nextTurn()
    }
    expect(await asked.stop()).toEqual([])
    expect(pool.stats()).toMatchObject({ opens: 1, timeouts: 0 })
  })

  test('of those who wait for a connection, none is served before another who came first', async () => {
    const { pool, passed } = await ready()
    const letGo = await hold(7)
    const order: string[] = []
    const note = async (what: string, promise: PromiseLike<unknown>): Promise<void> => {
      await promise
      order.push(what)
    }
    await toSend(passed, 2, () => {
      all.push(note('first', waits(pool.sql, 1)), note('second', one(pool.sql, 2)))
    })
    all.push(
      note(
        'lease',
        pool.use((sql) => sql`select 3`),
      ),
    )
    await until(() => pool.stats().waiting === 1)
    all.push(
      note('third', one(pool.sql, 3)),
      note('text', pool.sql.unsafe('select 4')),
      note('fourth', one(pool.sql, 5)),
    )
    await until(() => pool.stats().waiting === 4)
    await letGo()
    await Promise.all(all)
    expect(order).toEqual(['first', 'second', 'lease', 'third', 'text', 'fourth'])
  })
  const all: Promise<void>[] = []

  test('a query whose turn does not come within acquireTimeoutMs is one that had no connection', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock, acquireTimeoutMs: 1_000, pipelining: 3 })
    const letGo = await hold(7)
    let first: Promise<object[]> | undefined
    let sent: Promise<Error & { code?: string }>[] = []
    await toSend(passed, 3, () => {
      first = rowsOf(waits(pool.sql, 1))
      sent = [one(pool.sql, 2), one(pool.sql, 3)].map(rejection)
    })
    const waiting = rejection(one(pool.sql, 4))
    await until(() => pool.stats().waiting === 1)
    await clock.advance(1_019)
    for (const error of [await waiting, ...(await Promise.all(sent))]) {
      expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'queue', timeoutMs: 1_000 })
    }
    expect(pool.stats().timeouts).toBe(3)
    await letGo()
    expect(await first).toEqual(seven(1))
    expect(await rowsOf(one(pool.sql, 5))).toEqual([{ n: 5 }])
  })

  test('nothing is sent behind a query that is slow to answer', async () => {
    const clock = new FakeClock()
    const { pool } = await ready({ clock })
    const letGo = await hold(7)
    const slow = rowsOf(waits(pool.sql, 1))
    const shares = rowsOf(one(pool.sql, 2))
    await until(() => pool.stats().acquires >= 1)
    // Looked at when that one came, and then every 20 ms.
    await clock.advance(40)
    const waits2 = rowsOf(one(pool.sql, 3))
    await until(() => pool.stats().waiting === 1)
    await letGo()
    expect(await Promise.all([slow, shares, waits2])).toEqual([seven(1), [{ n: 2 }], [{ n: 3 }]])
  })

  test('one more connection is opened while queries have to share, up to max', async () => {
    const pool = make({ max: 3, pipelining: 4 })
    await one(pool.sql, 0)
    const asked = stream(pool, 12)
    await until(() => pool.stats().open === 3)
    expect(await asked.stop()).toEqual([])
    expect(pool.stats().opens).toBe(3)
  })
})

describe('giving back', () => {
  test.each([
    ['was evicted', {}, (pool: PostgresPool) => pool.evict()],
    ['is too old', { maxLifetimeMs: 10 }, (_: PostgresPool, clock: FakeClock) => clock.advance(10)],
  ] as const)('a connection that %s gets no query more', async (_, options, spend) => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock, ...options })
    const letGo = await hold(7)
    let all: Promise<object[]>[] = []
    await toSend(passed, 2, () => {
      all = [waits(pool.sql, 1), one(pool.sql, 2)].map(rowsOf)
    })
    await spend(pool, clock)
    const { sent } = passed
    const next = rowsOf(one(pool.sql, 3))
    await until(() => pool.stats().waiting === 1 || passed.sent > sent)
    expect(passed.sent).toBe(sent)
    await letGo()
    expect(await Promise.all([...all, next])).toEqual([seven(1), [{ n: 2 }], [{ n: 3 }]])
    expect(pool.stats().opens).toBe(2)
  })

  test('evict() has a connection closed that is shared without a pause', async () => {
    const { pool } = await ready()
    const asked = stream(pool)
    await until(() => asked.begun > 50)
    const { acquires } = pool.stats()
    await until(() => asked.begun > 150)
    // It hardly ever comes to rest: on a busy machine all six may be answered before one asks again.
    expect(pool.stats().acquires - acquires).toBeLessThan(50)
    pool.evict()
    await until(() => pool.stats().opens === 2)
    await until(() => pool.stats().closes.evicted === 1)
    expect(await asked.stop()).toEqual([])
  })

  test('maxLifetimeMs holds for a connection that is shared without a pause', async () => {
    const { pool } = await ready({ maxLifetimeMs: 60 })
    const asked = stream(pool)
    await until(() => pool.stats().opens >= 4)
    expect(await asked.stop()).toEqual([])
  })

  test('close() lets those finish that were sent, and refuses those that come', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock })
    const letGo = await hold(7)
    let all: Promise<object[]>[] = []
    await toSend(passed, 5, () => {
      all = [waits(pool.sql, 0), ...range(4).map((n) => one(pool.sql, n))].map(rowsOf)
    })
    const closing = pool.close()
    expect(await rejection(one(pool.sql, 9))).toBeInstanceOf(PoolClosedError)
    await letGo()
    expect(await Promise.all(all)).toEqual([seven(0), ...range(4).map((n) => [{ n }])])
    expect(await closing).toEqual({ revoked: 0 })
    expect(pool.stats()).toMatchObject({ open: 0, leased: 0, closing: 0, waiting: 0 })
    expect(clock.timers.all).toBe(0)
  })

  test('close() in the middle of a stream of queries ends it', async () => {
    const { pool } = await ready()
    const asked = stream(pool)
    await until(() => asked.begun > 50)
    expect(await pool.close({ timeoutMs: 5_000 })).toEqual({ revoked: 0 })
    const errors = await asked.stop()
    expect(errors.filter((error) => !(error instanceof PoolClosedError))).toEqual([])
    expect(pool.stats()).toMatchObject({ open: 0, leased: 0 })
  })

  test('close() revokes what does not end in time, and leaves no timer', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock })
    await hold(7)
    let all: Promise<Error>[] = []
    await toSend(passed, 4, () => {
      all = [waits(pool.sql, 0), ...range(3).map((n) => one(pool.sql, n))].map(rejection)
    })
    const closing = pool.close({ timeoutMs: 100 })
    await clock.advance(100)
    const errors = await Promise.all(all)
    expect(errors.map(codeOf)).toEqual(errors.map(() => 'ERR_CONNECTION_LOST'))
    expect(await closing).toEqual({ revoked: 1 })
    expect(pool.stats().open).toBe(0)
    expect(clock.timers.all).toBe(0)
    await until(async () => (await running(db, 'pg_advisory_xact_lock(7)')) === undefined)
  })

  test('a connection that is shared without a pause is no leak', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock, leakAfterMs: 100 })
    const letGo = await hold(7)
    let all: Promise<object[]>[] = []
    await toSend(passed, 2, () => {
      all = [waits(pool.sql, 0), one(pool.sql, 1)].map(rowsOf)
    })
    await clock.advance(200)
    expect(pool.stats().leaks).toBe(0)
    await letGo()
    await Promise.all(all)
  })

  test('at rest, sharing leaves no timer behind', async () => {
    const clock = new FakeClock()
    const { pool } = await ready({ clock, idleTimeoutMs: Infinity, maxLifetimeMs: Infinity })
    await clock.advance(100)
    const { all } = clock.timers
    await Promise.all(range(6).map((n) => one(pool.sql, n)))
    expect(clock.timers.all).toBeGreaterThan(all)
    await clock.advance(50)
    await clock.advance(50)
    expect(clock.timers.all).toBe(all)
  })
})

describe('events', () => {
  test('each query that shares is told once, with its connection, its rows and its times', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock })
    await pool.sql`create table told (n int)`
    const insert = (n: number) => pool.sql`insert into told select ${n}::int from generate_series(1, 3)`
    await insert(0)
    const heard = hear('millpond:query')
    const letGo = await hold(7)
    const cancelled = one(pool.sql, 5)
    let all: Promise<unknown> = Promise.resolve()
    await toSend(passed, 5, () => {
      all = Promise.allSettled(
        [waits(pool.sql, 1), insert(2), divides(pool.sql, 3, 0), one(pool.sql, 4), cancelled].map(rowsOf),
      )
    })
    await clock.advance(30)
    cancelled.cancel()
    await letGo()
    await all
    await until(() => heard.length === 5)
    const told = heard.map(({ command, rows, code, waitedMs, durationMs }) => [
      command,
      rows,
      code,
      waitedMs,
      durationMs,
    ])
    expect(told).toEqual([
      ['SELECT', 1, undefined, 0, 30],
      ['INSERT', 3, undefined, 0, 30],
      [undefined, undefined, '22012', 0, 30],
      ['SELECT', 1, undefined, 0, 30],
      [undefined, undefined, '57014', 0, 30],
    ])
    expect(new Set(heard.map(({ connection }) => connection)).size).toBe(1)
    expect(heard[0]?.connection).toMatch(/^mp/)
  })

  test('one that has waited, and one that was sent twice, are told once', async () => {
    const clock = new FakeClock()
    const { pool, passed } = await ready({ clock, pipelining: 3, queryText: true })
    await pool.sql`create table told_twice (n int)`
    const read = (n: number) => pool.sql`select * from told_twice where n = ${n}`
    await read(0)
    const heard = hear('millpond:query')
    const letGo = await hold(7)
    const all: Promise<object[]>[] = []
    await toSend(passed, 3, () => {
      all.push(...[waits(pool.sql, 1), read(2), read(3), read(4)].map(rowsOf))
    })
    await clock.advance(20)
    await another()`alter table told_twice add column added int`
    await letGo()
    await Promise.all(all)
    await until(() => heard.length >= 4)
    expect(heard.map(({ command, rows, code }) => [command, rows, code])).toEqual([
      ['SELECT', 1, undefined],
      ...range(3).map(() => ['SELECT', 0, undefined]),
    ])
    expect(heard.at(-1)?.waitedMs).toBe(20)
    await one(pool.sql, 5)
    expect(heard.length).toBe(5)
  })

  test('debug hears of each query that shares, once', async () => {
    const texts: unknown[][] = []
    const { pool } = await ready({
      debug: (_: number, text: string, parameters: unknown[]) => void texts.push([text, ...parameters]),
    })
    texts.length = 0
    await Promise.all(range(5).map((n) => one(pool.sql, n)))
    expect(texts).toEqual(range(5).map((n) => ['select $1::int as n', n]))
  })
})

describe('Connection.runBehind()', () => {
  test('Connection.runBehind() counts what is unanswered, and refuses a session of one query at a time', async () => {
    for (const pipelining of [1, 2]) {
      const under = new DriverUnderTest(db.url, { pipelining })
      const connection = await under.open()
      onTestFinished(() => under.close(connection))
      const sql = under.sql(connection)
      const ask = (n: number) => sql`select ${n}::int as n, pg_advisory_xact_lock(7)::text as seven`
      await ask(0)
      const letGo = await hold(7)
      const first = rowsOf(ask(1))
      await blocked()
      expect(connection.unanswered).toBe(1)
      const behind = ask(2)
      const done: string[] = []
      const taken = connection.runBehind(behind as never, { done: () => void done.push('done') })
      expect(taken).toBe(pipelining > 1)
      expect(connection.unanswered).toBe(pipelining)
      expect(connection.idle).toBe(false)
      await letGo()
      expect(await first).toEqual(seven(1))
      if (taken) expect(await rowsOf(behind)).toEqual(seven(2))
      await connection.whenIdle()
      expect(done).toEqual(taken ? ['done'] : [])
      expect(connection.unanswered).toBe(0)
    }
  })
})

test('Connection.runBehind() sends nothing behind what may leave something in the session', async () => {
  const under = new DriverUnderTest(db.url, { pipelining: 8 })
  const connection = await under.open()
  onTestFinished(() => under.close(connection))
  const sql = under.sql(connection)
  await one(sql, 0)
  const letGo = await hold(7)
  const first = sql.unsafe('select pg_advisory_xact_lock(7)').execute()
  await blocked()
  const behind = one(sql, 1)
  expect(connection.runBehind(behind as never, {})).toBe(false)
  await letGo()
  await first
  expect(await rowsOf(behind)).toEqual([{ n: 1 }])
})

describe('the option pipelining', () => {
  test.each([0, -1, 1.5, 101, Number.NaN, Infinity, '8', true, null])('pipelining: %j is refused', (value) => {
    const refused = (): unknown => createPool(db.url, { pipelining: value as number })
    expect(refused).toThrow(expect.objectContaining({ code: 'ERR_OPTION', option: 'pipelining' }))
    expect(refused).toThrow(String(value))
    expect(refused).toThrow(/1.*100/)
  })

  test.each([undefined, 1])('pipelining: %j has one query at a time on a connection', async (pipelining) => {
    const passed = await way()
    const pool = make({ port: passed.port, pipelining: pipelining as number })
    await one(pool.sql, 0)
    await waits(pool.sql, 0)
    const letGo = await hold(7)
    const { acquires } = pool.stats()
    let all: Promise<object[]>[] = []
    await toSend(passed, 1, () => {
      all = [waits(pool.sql, 1), ...range(4).map((n) => one(pool.sql, n))].map(rowsOf)
    })
    await until(() => pool.stats().waiting === 4)
    await letGo()
    expect(await Promise.all(all)).toEqual([seven(1), ...range(4).map((n) => [{ n }])])
    expect(pool.stats().acquires).toBe(acquires + 5)
  })
})
