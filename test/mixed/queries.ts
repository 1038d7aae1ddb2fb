import { setTimeout as sleep } from 'node:timers/promises'
import type { PostgresSql } from '../../src/postgres/index.ts'
import { Wrong, codeOf, same } from './here.ts'
import type { Here, Outcome } from './here.ts'

/** One query, of whatever tag, and what has to come of it. */
export interface Query {
  readonly name: string
  /** The code with which it fails. */
  readonly fails?: string
  /** That is not the server's: a transaction goes on. */
  readonly local?: boolean
  readonly run: (sql: PostgresSql, here: Here) => Promise<unknown>
}

/** Fails as expected only if the error is this query's own. */
function ofOwn(error: unknown, nonce: number): never {
  const known = codeOf(error) === 'P0042' || codeOf(error) === '22P02'
  if (known && !(error instanceof Error && error.message.includes(String(nonce)))) {
    throw new Wrong(`got an error of another query: ${String(error)} in place of one with ${nonce}`)
  }
  throw error
}

export const queries: readonly (readonly [number, Query])[] = [
  [
    6,
    {
      name: 'plain',
      run: async (sql, here) => {
        const n = here.nonce()
        same(await sql`select ${n}::int as n, ${`t${n}`} as t`, [{ n, t: `t${n}` }])
      },
    },
  ],
  [
    3,
    {
      name: 'rows',
      run: async (sql, here) => {
        const [n, count] = [here.nonce(), here.random.from(1, 300)]
        const rows = await sql<{ n: number; g: number }[]>`select ${n}::int as n, g from generate_series(1, ${count}) g`
        same([rows.length, rows.count, rows.command], [count, count, 'SELECT'])
        if (!rows.every((row, i) => row.n === n && row.g === i + 1))
          throw new Wrong(`rows of another: not all are ${n}`)
      },
    },
  ],
  [
    2,
    {
      name: 'values',
      run: async (sql, here) => {
        const n = here.nonce()
        same(await sql`select ${n}::int, g from generate_series(1, 2) g`.values(), [
          [n, 1],
          [n, 2],
        ])
      },
    },
  ],
  [
    2,
    {
      name: 'raw',
      run: async (sql, here) => {
        const n = here.nonce()
        const [row] = await sql`select ${n}::int`.raw()
        same(row?.map(String), [String(n)])
      },
    },
  ],
  [
    2,
    {
      name: 'simple',
      run: async (sql, here) => {
        const n = here.nonce()
        same(await sql`select ${sql.unsafe(String(n))} as n`.simple(), [{ n }])
      },
    },
  ],
  [
    2,
    {
      name: 'describe',
      run: async (sql, here) => {
        const n = here.nonce()
        const { columns } = await sql.unsafe(`select 1 as c${n}`).describe()
        same(
          columns.map(({ name }) => name),
          [`c${n}`],
        )
      },
    },
  ],
  [
    3,
    {
      name: 'unsafe',
      run: async (sql, here) => {
        const n = here.nonce()
        same(await sql.unsafe('select $1::int as n, $2 as t', [n, 'x'], { prepare: here.random.chance(0.5) }), [
          { n, t: 'x' },
        ])
      },
    },
  ],
  [
    3,
    {
      name: 'several statements',
      run: async (sql, here) => {
        const n = here.nonce()
        same(await sql.unsafe(`select ${n} as a; select where false; select ${n} as b`), [[{ a: n }], [], [{ b: n }]])
      },
    },
  ],
  [
    2,
    {
      name: 'helpers',
      run: async (sql, here) => {
        const n = here.nonce()
        const rows = await sql`
          select ${sql(['a', 'b'])} from (values ${sql([
            [n, n + 1],
            [n + 2, n + 3],
          ])}) as v(a, b) where a::int in ${sql([n, n + 2])} ${here.random.chance(0.5) ? sql`and true` : sql``}`
        same(
          rows.map((row) => [Number(row['a']), Number(row['b'])]),
          [
            [n, n + 1],
            [n + 2, n + 3],
          ],
        )
      },
    },
  ],
  [
    2,
    {
      name: 'types',
      run: async (sql, here) => {
        const n = here.nonce()
        const d = new Date(1_700_000_000_000 + n)
        const rows = await sql`
          select ${sql.json({ n })}::jsonb as j, ${sql.array([n, n + 1])}::int[] as a, ${d}::timestamptz as d,
            ${Buffer.from(String(n))}::bytea as b, ${null}::text as z`
        const row = rows[0] as { j: unknown; a: unknown; d: unknown; b: Buffer; z: unknown } | undefined
        same([row?.j, row?.a, row?.d, String(row?.b), row?.z], [{ n }, [n, n + 1], d, String(n), null])
      },
    },
  ],
  [
    1,
    {
      name: 'large row',
      run: async (sql, here) => {
        const n = here.nonce()
        const [row] = await sql<{ t: string }[]>`select repeat(${`${n}.`}, 20000) as t`
        if (row?.t !== `${n}.`.repeat(20_000)) throw new Wrong(`a large row of another: ${row?.t.slice(0, 40)}`)
      },
    },
  ],
  [
    1,
    {
      name: 'large parameter',
      run: async (sql, here) => {
        const n = here.nonce()
        const text = `${n}.`.repeat(20_000)
        same(await sql`select ${n}::int as n, length(${text}) as l`, [{ n, l: text.length }])
      },
    },
  ],
  [
    2,
    {
      name: 'no rows',
      run: async (sql, here) => {
        const n = here.nonce()
        const rows = await sql.unsafe(`select 1 as c${n} where $1 > 1`, [0])
        same([rows.length, rows.columns.map(({ name }) => name)], [0, [`c${n}`]])
      },
    },
  ],
  [1, { name: 'no statement', run: async (sql) => same(await sql.unsafe(''), []) }],
  [
    2,
    {
      name: 'forEach',
      run: async (sql, here) => {
        const n = here.nonce()
        const seen: unknown[] = []
        await sql`select ${n}::int + g as n from generate_series(0, 9) g`.forEach((row) => {
          seen.push(row['n'])
        })
        same(
          seen,
          Array.from({ length: 10 }, (_, g) => n + g),
        )
      },
    },
  ],
  [
    3,
    {
      name: 'slow',
      run: async (sql, here) => {
        const n = here.nonce()
        same(await sql`select ${n}::int as n from pg_sleep(${here.random.from(0, 10) / 1_000})`, [{ n }])
      },
    },
  ],
  [
    2,
    {
      name: 'cancelled',
      run: async (sql, here) => {
        const n = here.nonce()
        const query = sql`select ${n}::int as n from pg_sleep(${here.random.from(0, 8) / 1_000})`.execute()
        const ms = here.random.from(-1, 8)
        if (ms < 0) query.cancel()
        else void sleep(ms).then(() => query.cancel())
        here.allow('57014')
        same(await query, [{ n }])
      },
    },
  ],
  [
    2,
    {
      name: 'notice and session',
      run: (sql, here) => sql.unsafe(`do $$ begin raise notice '${here.nonce()}'; end $$`),
    },
  ],
  [1, { name: 'syntax', fails: '42601', run: (sql, here) => sql`selec ${here.nonce()}` }],
  [
    2,
    {
      name: 'error after rows',
      fails: '22012',
      run: (sql, here) => sql`select ${here.nonce()}::int, 1 / (g - 5) from generate_series(1, 9) g`,
    },
  ],
  [
    1,
    {
      name: 'error after large rows',
      fails: '22012',
      run: (sql) => sql`select repeat('x', 30000), 1 / (g - 20) from generate_series(1, 30) g`,
    },
  ],
  [
    1,
    {
      name: 'error after rows, simple',
      fails: '22012',
      run: (sql) => sql.unsafe('select 1 as a; select 1 / (g - 5) from generate_series(1, 9) g; select 3 as c'),
    },
  ],
  [1, { name: 'constraint', fails: '23505', run: (sql, here) => sql`insert into fixed values (1, ${here.nonce()})` }],
  [
    1,
    { name: 'undefined', fails: 'UNDEFINED_VALUE', local: true, run: (sql) => sql`select ${undefined as never}::int` },
  ],
  [
    1,
    {
      name: 'raised',
      fails: 'P0042',
      run: async (sql, here) => {
        const n = here.nonce()
        const text = `do $$ begin raise exception 'of ${n}' using errcode = 'P0042'; end $$`
        return await sql.unsafe(text).catch((error: unknown) => ofOwn(error, n))
      },
    },
  ],
  [
    1,
    {
      name: 'bad value',
      fails: '22P02',
      run: async (sql, here) => {
        const n = here.nonce()
        return await sql`select ${`x${n}`}::text::int`.catch((error: unknown) => ofOwn(error, n))
      },
    },
  ],
]

/** Runs one query. `failed` is the server's: a transaction has failed with it. */
export async function runQuery(sql: PostgresSql, here: Here, query: Query): Promise<Outcome<unknown>> {
  const outcome = await here.attempt(query.name, () => query.run(sql, here), query.fails)
  return query.local && outcome.was === 'failed' ? { ...outcome, was: 'excused' } : outcome
}
