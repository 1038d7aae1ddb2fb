import { execFile } from 'node:child_process'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import plain from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import dropIn from '../../src/postgres/index.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import {
  authenticated,
  challenge,
  fatal,
  keyAndReady,
  message,
  offer,
  scriptedServer,
} from '../support/scripted-server.ts'

type Postgres = typeof plain

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
  const there = plain(db.url, { max: 1 })
  await there`create table kept (a int)`
  await there.end()
})
afterAll(() => db.drop())

/** How long something may take before it counts as never: what is to hang, and what is not, on a busy machine. */
const [hangsMs, comesMs] = [400, 8_000]
let neverMs = comesMs

/** What became of a promise: its rows, the code of its error, or that it hangs. */
async function fate(promise: PromiseLike<unknown>): Promise<unknown> {
  const settled = Promise.resolve(promise).then(
    (value) => (Array.isArray(value) ? Array.from(value as unknown[]) : (value ?? 'resolved')),
    (error: Error & { code?: string }) => error.code ?? error.name,
  )
  return Promise.race([settled, sleep(neverMs, 'hangs')])
}

const fates = (...promises: PromiseLike<unknown>[]): Promise<unknown[]> => Promise.all(promises.map(fate))

/** The first connection is there, and has told its types. */
const warm = async (sql: plain.Sql): Promise<unknown> => sql`select 1`

const busy = (sql: plain.Sql): plain.PendingQuery<plain.Row[]> =>
  sql`select 'mine' as row, pg_sleep(0.05)::text as s`.execute()
const mine = [{ row: 'mine', s: '' }]
const next = [{ next: 1 }]

async function kill(): Promise<void> {
  await db.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${db.name}`
}

const running = (text: string): Promise<void> =>
  until(async () => (await db.sessions()).some((s) => s.state === 'active' && s.query.includes(text)), text)

/** Another instance of the same maker, for a server that keeps to a script. */
type Other = (port: number, options?: plain.Options<{}>) => plain.Sql

interface Finding {
  readonly what: string
  readonly max?: number
  readonly options?: plain.Options<{}>
  readonly run: (sql: plain.Sql, other: Other) => Promise<unknown>
  /** What postgres.js 3.4.9 does. Where it does better one day, this test tells. */
  readonly plain: unknown
  readonly ours: unknown
}

const findings: readonly Finding[] = [
  {
    what: 'a query that cannot be built, behind one that runs, takes its place',
    run: async (sql) => {
      const innocent = busy(sql)
      const bad = sql`select ${undefined as never}`.execute()
      return [await fates(innocent, bad), await fate(sql`select 1 as next`)]
    },
    plain: [['UNDEFINED_VALUE', 'hangs'], 'hangs'],
    ours: [[mine, 'UNDEFINED_VALUE'], next],
  },
  ...(
    [
      [
        'a Date that is none',
        (sql, wrong) => sql`select ${wrong ? new Date(Number.NaN) : new Date()}::timestamptz as at`,
        'RangeError',
      ],
      [
        'json with a circle',
        (sql, wrong) => sql`select ${sql.json(wrong ? (circle() as never) : 1)} as j`,
        'TypeError',
      ],
      [
        'text that is no time',
        (sql, wrong) => sql`select ${wrong ? 'never' : '2020-01-02'}::timestamptz as at`,
        'RangeError',
      ],
    ] satisfies [string, (sql: plain.Sql, wrong: boolean) => plain.PendingQuery<plain.Row[]>, string][]
  ).map(([what, query, code]): Finding => ({
    what: `a value that cannot be sent, behind a query that runs: ${what}`,
    run: async (sql) => {
      // From here on the statement is known, and its values are written when it is handed over.
      await query(sql, false)
      const innocent = busy(sql)
      const wrong = query(sql, true).execute()
      const after = sql`select 1 as next`.execute()
      return fates(innocent, wrong, after)
    },
    plain: [code, next, 'hangs'],
    ours: [mine, code, next],
  })),
  {
    what: 'one that is cancelled before its turn gives its rows to the next one',
    run: async (sql) => {
      const first = busy(sql)
      const second = sql`select 'second' as row`.execute()
      const third = sql`select 'third' as row`.execute()
      await running('mine')
      second.cancel()
      return fates(first, second, third)
    },
    plain: [mine, 'hangs', [{ row: 'second' }]],
    ours: [mine, '57014', [{ row: 'third' }]],
  },
  {
    what: 'a query behind a transaction that was left open is undone with it',
    max: 2,
    run: async (sql) => {
      const held = await sql.reserve()
      const opens = sql.unsafe(`select pg_sleep(0.05); begin`).execute()
      const insert = sql`insert into kept values (23)`.execute()
      await fates(opens, insert)
      const committed = (): Promise<unknown> => fate(db.admin.unsafe('select 1').then(() => count(23)))
      const result = [await fate(insert), await committed()]
      held.release()
      return result
    },
    plain: [[], 0],
    ours: [[], 1],
  },
  {
    what: 'a query beside a COPY that is open gets its error',
    run: async (sql) => {
      const stream = await sql`copy (select g from generate_series(1, 100000) g) to stdout`.readable()
      const beside = fate(sql`select 1 as next`)
      await nextTurn()
      let bytes = 0
      for await (const chunk of stream) bytes += String(chunk).length
      return [bytes, await beside]
    },
    plain: [588_895, 'COPY_IN_PROGRESS'],
    ours: [588_895, next],
  },
  {
    what: 'a query in the loop over a cursor of the same session waits for itself',
    run: (sql) =>
      fate(
        sql.begin(async (t) => {
          for await (const _ of t`select g from generate_series(1, 3) g`.cursor(1)) await t`select 1 as next`
        }),
      ),
    plain: 'hangs',
    ours: 'ERR_SESSION_BUSY',
  },
  {
    what: 'an error after rows leaves holes in the next answer',
    run: async (sql) => [
      await fate(sql`select 1 / (g - 4) as a from generate_series(1, 5) g`),
      await fate(sql`select 1 as next`),
    ],
    plain: ['22012', [undefined, undefined, undefined, { next: 1 }]],
    ours: ['22012', next],
  },
  {
    what: 'a modifier after a query was sent changes the answer of the next one',
    run: async (sql) => {
      const first = busy(sql)
      await running('mine')
      const late = await fate(Promise.resolve().then(() => void first.cursor(1, () => undefined)))
      return [late, await fate(first), await fate(sql`select 1 as next`)]
    },
    plain: ['resolved', mine, []],
    ours: ['ERR_QUERY_SENT', mine, next],
  },
  {
    what: 'the query after a connection was lost gets its error',
    run: async (sql) => {
      const lost = fate(sql`select pg_sleep(30), 5 as five`)
      await running('five')
      await kill()
      return [await lost, await fate(sql`select 1 as next`)]
    },
    plain: ['CONNECTION_CLOSED', '57P01'],
    ours: ['CONNECTION_CLOSED', next],
  },
  {
    what: 'the rest of a transaction whose connection was lost is committed outside of it',
    run: async (sql) => {
      let left: Promise<unknown> | undefined
      await fate(
        sql.begin((t) => {
          left = (async () => {
            await t`insert into kept values (6)`
            const lost = fate(t`select pg_sleep(30), 6 as six`)
            await running('six')
            await kill()
            await lost
            // Others connect again: the first of them gets the error.
            await fate(sql`select 1`)
            await fate(sql`select 1`)
            await fate(t`insert into kept values (6)`)
          })()
          return left
        }),
      )
      await left
      return count(6)
    },
    plain: 1,
    ours: 0,
  },
  {
    what: 'reserve() on a pool without connections hangs',
    options: { fetch_types: false },
    run: async (sql) => {
      const reserved = sql.reserve()
      const got = await fate(reserved.then(() => 'reserved'))
      if (got === 'reserved') (await reserved).release()
      return got
    },
    plain: 'hangs',
    ours: 'reserved',
  },
  {
    what: 'DISCARD ALL takes the prepared statements of a transaction',
    max: 2,
    run: async (sql) => {
      await one(sql)
      await sql.unsafe('discard all')
      return fate(sql.begin(one))
    },
    plain: '26000',
    ours: next,
  },
  {
    what: 'end() after a connection was lost in the middle of a query',
    run: async (sql) => {
      const lost = fate(sql`select pg_sleep(30), 8 as eight`)
      await running('eight')
      await kill()
      return [await lost, await fate(sql.end())]
    },
    plain: ['CONNECTION_CLOSED', 'hangs'],
    ours: ['CONNECTION_CLOSED', 'resolved'],
  },
  {
    what: 'three queries whose plan has become invalid get one answer',
    run: async (sql) => {
      await sql`create table if not exists planned (a int)`
      const ask = (): plain.PendingQuery<plain.Row[]> => sql`select * from planned where a > ${0}`.execute()
      await ask()
      const there = plain(db.url, { max: 1 })
      await there`alter table planned add column ${there(`b${++columns}`)} int`
      await there.end()
      return fates(ask(), ask(), ask())
    },
    plain: [[], 'hangs', 'hangs'],
    ours: [[], [], []],
  },
  {
    what: 'a statement that is sent again because the table has changed writes what was made of its parameters before',
    run: async (sql) => {
      await sql`create table if not exists rewritten (id int primary key, done boolean, note jsonb, at timestamptz)`
      await sql`insert into rewritten values (1) on conflict do nothing`
      const note = { why: 'because' }
      const at = new Date(0)
      const write = (): PromiseLike<plain.Row[]> =>
        sql`update rewritten set done = ${true}, note = ${sql.json(note)}, at = ${at} where id = 1 returning *`
      await write()
      const there = plain(db.url, { max: 1 })
      await there`alter table rewritten add column ${there(`b${++columns}`)} int`
      await there.end()
      const [row] = await write()
      return [row?.['done'], row?.['note'], row?.['at']]
    },
    plain: [false, '{"why":"because"}', new Date(0)],
    ours: [true, { why: 'because' }, new Date(0)],
  },
  {
    what: 'a server that accepts and closes is asked without end, and nobody hears of it',
    run: async (_, other) => {
      await using server = await scriptedServer((socket) => socket.end())
      const came = await fate(other(server.port)`select 1`)
      return [came, server.sockets > 3]
    },
    plain: ['hangs', true],
    ours: ['CONNECTION_CLOSED', false],
  },
  {
    what: 'a server that is full is asked once for each of those who wait',
    run: async (_, other) => {
      await using server = await scriptedServer((socket) => socket.end(fatal('53300', 'too many clients')))
      const sql = other(server.port)
      const came = await fates(...Array.from({ length: 9 }, () => sql`select 1`.execute()))
      return [new Set(came), server.sockets]
    },
    plain: [new Set(['53300']), 9],
    ours: [new Set(['53300']), 1],
  },
  {
    what: 'a server that leaves out the proof that it knows the password is taken at its word',
    run: async (_, other) => {
      const answer = Buffer.concat([message('C', 'SELECT 0\0'), message('Z', 'I')])
      await using server = await scriptedServer(offer, challenge, Buffer.concat([authenticated, keyAndReady]), answer)
      return await fate(other(server.port).unsafe('select 1'))
    },
    plain: [],
    ours: 'SASL_SIGNATURE_MISMATCH',
  },
]

let columns = 0

function one(sql: plain.ISql): plain.PendingQuery<plain.Row[]> {
  return sql`select ${1}::int as next`
}

function circle(): object {
  const object: Record<string, unknown> = {}
  object['self'] = object
  return object
}

async function count(a: number): Promise<number> {
  const there = plain(db.url, { max: 1 })
  const [row] = await there<[{ count: number }]>`select count(*)::int as count from kept where a = ${a}`
  await there`delete from kept where a = ${a}`
  await there.end()
  return row.count
}

describe('what postgres.js does on one connection, and what it does not do here', () => {
  for (const [name, postgres] of [
    ['plain', plain],
    ['ours', dropIn as unknown as Postgres],
  ] as const) {
    test.each(findings)(`${name}: $what`, async ({ max = 1, options, run, ...expected }) => {
      const sql = postgres(db.url, { max, backoff: false, onnotice: () => undefined, ...options })
      const others: plain.Sql[] = []
      neverMs = name === 'plain' ? hangsMs : comesMs
      try {
        if (options?.fetch_types !== false) await warm(sql)
        const came = await run(sql, (port, more) => {
          const url = `postgres://ann:secret@127.0.0.1:${port}/shop`
          const another = postgres(url, { max: 1, backoff: false, fetch_types: false, ...more })
          others.push(another)
          return another
        })
        expect(came).toEqual(expected[name])
      } finally {
        for (const each of [sql, ...others]) await fate(each.end({ timeout: 0 }))
        await kill()
      }
    })
  }
})

describe('what ends the process of postgres.js, or does not let it end', () => {
  const root = fileURLToPath(new URL('../..', import.meta.url))

  /** How a program ends; what it prints, if it ends by itself. */
  async function program(from: string, options: string, text: string): Promise<string> {
    const whole = `
      import postgres from '${from}'
      const sql = postgres(process.env.URL, { max: 1, onnotice: () => undefined, ${options} })
      const shown = (promise) => promise.then(() => 'resolved', (error) => 'rejected: ' + (error.code ?? error.message))
      ${text}`
    const run = promisify(execFile)(process.execPath, ['--input-type=module', '-e', whole], {
      cwd: root,
      env: { ...process.env, URL: db.url },
      // Only theirs has to be stopped.
      timeout: from === 'postgres' ? 3_000 : 20_000,
    })
    return run.then(
      ({ stdout }) => stdout.trim(),
      ({ code, stdout, stderr }: { code: number | null; stdout: string; stderr: string }) =>
        code === null ? `goes on: ${stdout.trim()}` : `ended with ${code}: ${/mine|57014|TypeError/.exec(stderr)?.[0]}`,
    )
  }

  // What nobody has caught ends it before that.
  const ask = 'console.log(await shown(sql`select 1`)); setTimeout(() => process.exit(), 50)'

  test.each([
    [
      'a password that rejects',
      `password: () => Promise.reject(Object.assign(new Error('mine'), { code: 'MINE' }))`,
      ask,
      ['ended with 1: mine', 'rejected: MINE'],
    ],
    [
      'a question for the types of arrays that fails',
      'connection: { statement_timeout: 1 }, fetch_types: true',
      `const lock = postgres(process.env.URL, { max: 1, fetch_types: false })
       await lock.unsafe('begin; lock table pg_catalog.pg_type in access exclusive mode')
       ${ask}`,
      ['ended with 1: 57014', 'rejected: 57014'],
    ],
    [
      'release() of a reserved connection that was lost',
      '',
      `const other = postgres(process.env.URL, { max: 1 })
       const reserved = await sql.reserve()
       const [{ pid }] = await reserved\`select pg_backend_pid() as pid\`
       await other\`select pg_terminate_backend(\${pid}::int)\`
       await new Promise((resolve) => setTimeout(resolve, 200))
       reserved.release()
       ${ask}`,
      ['ended with 1: TypeError', 'resolved'],
    ],
    [
      'nothing: an idle connection keeps it alive',
      '',
      'console.log(await shown(sql`select 1`))',
      ['goes on: resolved', 'resolved'],
    ],
  ])('%s', async (_, options, text, [theirs, ours]) => {
    const said = await Promise.all(['postgres', 'millpond/postgres'].map((from) => program(from, options, text)))
    expect(said).toEqual([theirs, ours])
  })
})
