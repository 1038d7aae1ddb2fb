import { setImmediate as nextTurn } from 'node:timers/promises'
import fc from 'fast-check'
import plain from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPool } from '../../src/postgres/index.ts'
import type { PostgresPool, PostgresSql } from '../../src/postgres/index.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { givenBack } from '../support/given-back.ts'

// Queries of all kinds on connections that are shared, while plans change, queries are cancelled and sessions end. From
// the environment:
//
//   PIPELINING_OPERATIONS  how many; 6,000 in a run of all tests
//   PIPELINING_SEED        random; printed
//   PIPELINING_FIGURES     set: prints how often what happened
const { env } = process
const seed = Number(env['PIPELINING_SEED'] ?? Date.now() % 1_000_000)
const operations = Number(env['PIPELINING_OPERATIONS'] ?? 10_000)
const inOneRun = 500
/** How many are under way at a time. */
const callers = 20
const longestMs = 20_000
/** So long after a session has been ended, a query may still have been sent on it. */
const lostForMs = 500
/** A table has room for so many columns. */
const mostColumns = 300

let db: TestDatabase
let outside: plain.Sql
beforeAll(async () => {
  db = await createDatabase()
  outside = plain(db.url, { max: 1, onnotice: () => undefined, connection: { application_name: 'outside' } })
  await outside.unsafe(`
    create table kept (id int);
    create table tally (slot int primary key, n int);
    insert into tally select g, 0 from generate_series(0, 3) g;
    create table only_once (id int primary key);
    insert into only_once values (1);
    create table plans (id int, yes bool, kind int default 5);
    insert into plans select g, g % 2 = 0 from generate_series(1, 8) g`)
})
afterAll(async () => {
  await outside.end()
  await db.drop()
})

/** What the model knows of the tables; it outlives a run. */
const model = {
  next: 1,
  /** Of each row that was asked for, whether it is there. */
  kept: new Map<number, 'there' | 'not there' | 'unknown'>(),
  tally: Array.from({ length: 4 }, () => ({ least: 0, most: 0 })),
  /** Columns that the table of the plans has for certain, and those that it may have. */
  columns: { least: 0, most: 0 },
}
const counts: Record<string, number> = {}
const count = (what: string): void => {
  counts[what] = (counts[what] ?? 0) + 1
}

class World {
  readonly pool: PostgresPool
  readonly wrong: string[] = []
  readonly #ends: { endedAt: number }[] = []

  constructor(pool: PostgresPool) {
    this.pool = pool
  }

  /** Ends a session of the pool; resolves when it has ended. */
  async terminate(nth: number): Promise<void> {
    const end = { endedAt: Infinity }
    this.#ends.push(end)
    await db.admin`
      select pg_terminate_backend(pid, 5000) from (
        select pid from pg_stat_activity where datname = ${db.name} and application_name <> 'outside'
        order by pid offset ${nth} % 3 limit 1) as s`
    end.endedAt = performance.now()
  }

  mayLose(startedAt: number): boolean {
    return this.#ends.some(({ endedAt }) => endedAt + lostForMs > startedAt)
  }
}

/** How an operation went: `ok`, or the code of its error. */
type Outcome = string
const lost: ReadonlySet<string> = new Set(['ERR_CONNECTION_LOST', 'ERR_OUTCOME_UNKNOWN', 'ERR_LEASE_RELEASED'])

interface Drawn {
  readonly kind: keyof typeof kinds
  readonly n: number
  readonly turns: number
  readonly yes: boolean
  readonly text: string
}

/** One operation, and what it finds wrong. */
class Here {
  readonly world: World
  readonly drawn: Drawn
  readonly #startedAt = performance.now()

  constructor(world: World, drawn: Drawn) {
    this.world = world
    this.drawn = drawn
  }

  report(what: unknown): void {
    this.world.wrong.push(`${JSON.stringify(this.drawn)}: ${typeof what === 'string' ? what : show(what)}`)
  }

  /** Runs something whose answer is to be this, or whose error is to have one of the codes. */
  async check(
    expected: unknown,
    promise: PromiseLike<unknown>,
    { codes = [], surely = false }: { codes?: readonly string[]; surely?: boolean } = {},
  ): Promise<Outcome> {
    let answer: unknown
    try {
      answer = await promise
    } catch (error) {
      const code = String((error as { code?: unknown } | undefined)?.code ?? error)
      count(code)
      if (codes.includes(code) || (lost.has(code) && this.world.mayLose(this.#startedAt))) return code
      this.report(error)
      return code
    }
    count('ok')
    const ok =
      typeof expected === 'function' ? (expected as (of: unknown) => boolean)(answer) : show(answer) === show(expected)
    if (surely || !ok) this.report(`expected ${surely ? codes.join() : show(expected)}, got ${show(answer)}`)
    return 'ok'
  }

  /** The same, for what has to fail. */
  fails(code: string, promise: PromiseLike<unknown>): Promise<Outcome> {
    return this.check(undefined, promise, { codes: [code], surely: true })
  }
}

function show(value: unknown): string {
  if (value instanceof Error) return `${value.name} ${String((value as { code?: unknown }).code)}: ${value.message}`
  const rows: unknown = Array.isArray(value) ? [...(value as unknown[])] : value
  const text = JSON.stringify(rows, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part)) as
    | string
    | undefined
  return (text ?? 'undefined').slice(0, 500)
}

const range = (length: number): number[] => Array.from({ length }, (_, i) => i)
async function wait(turns: number): Promise<void> {
  for (let i = 0; i < turns; i++) await nextTurn()
}

// Each statement is written once: it is known by where it is written.
const integer = (sql: PostgresSql, n: number) => sql`select ${n}::int as n`
const slow = (sql: PostgresSql, n: number) => sql`select ${n}::int as n, pg_sleep(0.004)::text as slept`
const slept = (n: number): unknown => [{ n, slept: '' }]
const insert = (sql: PostgresSql, id: number) => sql`insert into kept values (${id}) returning id`
const add = (sql: PostgresSql, slot: number) => sql`update tally set n = n + 1 where slot = ${slot}`

/** Notes whether a row that was asked for is there. */
async function keep(
  id: number,
  run: () => Promise<Outcome>,
  failed: 'unknown' | 'not there' = 'unknown',
): Promise<void> {
  model.kept.set(id, 'unknown')
  const outcome = await run()
  model.kept.set(id, outcome === 'ok' ? 'there' : failed)
}

async function raise(slot: number, run: () => Promise<Outcome>): Promise<void> {
  const of = model.tally[slot] as { least: number; most: number }
  of.most++
  if ((await run()) === 'ok') of.least++
}

const asked = { codes: ['57014'] }
const late = { codes: ['ERR_QUERY_TIMEOUT'] }

const kinds = {
  integer: (here: Here, { n }: Drawn) => here.check([{ n }], integer(here.world.pool.sql, n)),

  text: (here: Here, { text, yes }: Drawn) =>
    here.check(
      [{ text, yes, none: null }],
      here.world.pool.sql`select ${text}::text as text, ${yes} as yes, ${null}::int as none`,
    ),

  typed(here: Here, { n, text, yes }: Drawn) {
    const value = [n, text, yes, BigInt(n), null][n % 5] ?? null
    const expected = value === null ? null : String(value)
    return here.check([{ value: expected }], here.world.pool.sql`select ${value as never}::text as value`)
  },

  values: (here: Here, { n }: Drawn) =>
    here.check(
      [
        [n, 1],
        [n, 2],
      ],
      here.world.pool.sql`select ${n}::int, g from generate_series(1, 2) g`.values(),
    ),

  raw: (here: Here, { n }: Drawn) =>
    here.check([[Buffer.from(String(n))]], here.world.pool.sql`select ${n}::int as n`.raw()),

  each(here: Here, { n }: Drawn) {
    const seen: number[] = []
    const read = here.world.pool.sql<{ g: number }[]>`
      select g + ${n}::int as g from generate_series(1, 40) g`.forEach(({ g }) => void seen.push(g))
    return here.check(() => show(seen) === show(range(40).map((g) => g + 1 + n)), read)
  },

  many: (here: Here, { n, text }: Drawn) =>
    here.check(
      (rows: unknown) => show(rows) === show(range(60).map((g) => ({ g, n, text: text.repeat(30) }))),
      here.world.pool.sql`
        select g, ${n}::int as n, repeat(${text}, 30) as text from generate_series(0, 59) g`,
    ),

  none: (here: Here, { n }: Drawn) => here.check([], here.world.pool.sql`select ${n}::int as n where false`),

  plan(here: Here, { n, yes }: Drawn) {
    const id = 1 + (n % 8)
    const { least } = model.columns
    return here.check(
      (rows: readonly Record<string, unknown>[]) => {
        if (rows.length !== (yes === (id % 2 === 0) ? 1 : 0)) return false
        return rows.every(({ id: its, yes: that, kind, ...columns }) => {
          const names = Object.keys(columns)
          const isRight = its === id && that === yes && Number(kind) === 5
          const hasAll = names.length >= least && names.length <= model.columns.most
          return isRight && hasAll && names.every((name, i) => name === `c${i}` && columns[name] === i)
        })
      },
      here.world.pool.sql`select * from plans where id = ${id} and yes = ${yes}`,
    )
  },

  /** As `integer`, at another place. */
  same: (here: Here, { n }: Drawn) => here.check([{ n }], here.world.pool.sql`select ${n}::int as n`),

  described: (here: Here) =>
    here.check(
      ({ columns }: { columns: { name: string }[] }) => columns[0]?.name === 'n',
      integer(here.world.pool.sql, 1).describe(),
    ),

  divide: (here: Here, { n }: Drawn) =>
    here.fails('22012', here.world.pool.sql`select ${n}::int / (${n}::int - ${n}::int) as n`),

  /** Some of these are answered, so that those that are not are sent ahead, too. */
  sometimes(here: Here, { n }: Drawn) {
    const query = here.world.pool.sql`select 12 / (g - ${n % 7}::int) as x from generate_series(1, 4) g`
    const bad = n % 7
    if (bad >= 1 && bad <= 4) return here.fails('22012', query)
    return here.check(
      range(4).map((g) => ({ x: Math.trunc(12 / (g + 1 - bad)) })),
      query,
    )
  },

  cast(here: Here, { n, yes }: Drawn) {
    const query = here.world.pool.sql`select ${yes ? String(n) : 'none'}::text::int as n`
    return yes ? here.check([{ n }], query) : here.fails('22P02', query)
  },

  twice(here: Here, { yes }: Drawn) {
    const query = here.world.pool.sql`insert into only_once select 1 where ${yes}`
    return yes ? here.fails('23505', query) : here.check([], query)
  },

  insert(here: Here) {
    const id = model.next++
    return keep(id, () => here.check([{ id }], insert(here.world.pool.sql, id)))
  },

  insertFails(here: Here, { n }: Drawn) {
    const id = model.next++
    const query = here.world.pool.sql`insert into kept select ${id}::int / (case when ${n}::int < 0 then 1 else 0 end)`
    return keep(id, () => here.fails('22012', query), 'not there')
  },

  add: (here: Here, { n }: Drawn) => raise(n % 4, () => here.check([], add(here.world.pool.sql, n % 4))),

  async alter(here: Here, { yes }: Drawn) {
    const { columns } = model
    if (columns.most < mostColumns && yes) {
      const name = `c${columns.most++}`
      await here.check([], outside.unsafe(`alter table plans add column ${name} int default ${name.slice(1)}`))
      columns.least++
    } else {
      await here.check([], outside.unsafe(`alter table plans alter column kind type ${yes ? 'int' : 'bigint'}`))
    }
  },

  async cancelled(here: Here, { n, turns, yes }: Drawn) {
    const query = yes ? slow(here.world.pool.sql, n) : integer(here.world.pool.sql, n)
    const done = here.check(yes ? slept(n) : [{ n }], query, asked)
    await wait(turns)
    query.cancel()
    await done
  },

  async cancelledInsert(here: Here, { turns }: Drawn) {
    const id = model.next++
    const query = insert(here.world.pool.sql, id)
    const done = keep(id, () => here.check([{ id }], query, asked))
    await wait(turns)
    query.cancel()
    await done
  },

  timeout: (here: Here, { n, turns }: Drawn) =>
    here.check(slept(n), slow(here.world.pool.with({ timeoutMs: 1 + turns }).sql, n), late),

  timeoutOfAdd: (here: Here, { n, turns }: Drawn) =>
    raise(n % 4, () => here.check([], add(here.world.pool.with({ timeoutMs: 1 + (turns % 5) }).sql, n % 4), late)),

  async signal(here: Here, { n, turns }: Drawn) {
    const controller = new AbortController()
    // Whatever it is, also what looks like the server's.
    const reason = Object.assign(new Error(`it was ${n}`), { code: n % 2 ? '57014' : 'REASON' })
    const query = slow(here.world.pool.with({ signal: controller.signal }).sql, n)
    const done = here.check(slept(n), query, { codes: [reason.code] })
    await wait(turns)
    controller.abort(reason)
    if ((await done) === reason.code && (await Promise.resolve(query).catch((error: unknown) => error)) !== reason) {
      here.report('another reason')
    }
  },

  async transaction(here: Here, { yes, n }: Drawn) {
    const [first, second] = [model.next++, model.next++]
    const reason = new Error('back')
    const run = here.world.pool.transaction(async (sql) => {
      await insert(sql, first)
      await add(sql, n % 4)
      await insert(sql, second)
      if (!yes) throw reason
      return 'committed'
    })
    if (!yes) {
      const undone = (): Promise<Outcome> => here.check(undefined, run, { codes: [String(reason)], surely: true })
      await keep(first, () => keep(second, undone, 'not there') as Promise<never>, 'not there')
      return
    }
    let outcome = ''
    await raise(n % 4, async () => (outcome = await here.check('committed', run)))
    for (const id of [first, second]) model.kept.set(id, outcome === 'ok' ? 'there' : 'unknown')
  },

  lease: (here: Here, { n }: Drawn) =>
    here.check(
      [n, n + 1, n + 2],
      here.world.pool.use(async (sql) => {
        const rows = await Promise.all([integer(sql, n), integer(sql, n + 1), integer(sql, n + 2)])
        return rows.map(([row]) => row?.['n'] as unknown)
      }),
    ),

  texts: (here: Here, { n }: Drawn) =>
    here.check([[{ n }], [{ m: n }]], here.world.pool.sql.unsafe(`select ${n} as n; select ${n} as m`)),

  values_of_types: (here: Here, { n }: Drawn) =>
    here.check(
      [{ at: new Date(n), list: [n], five: 5 }],
      here.world.pool
        .sql`select ${new Date(n)}::timestamptz as at, ${[n]}::int[] as list, ${here.world.pool.sql`5`} as five`,
    ),

  async cursor(here: Here, { n }: Drawn) {
    const seen: number[] = []
    const read = async (): Promise<number[]> => {
      for await (const rows of here.world.pool.sql<{ g: number }[]>`
        select g from generate_series(1, ${n % 9}) g`.cursor(3)) {
        seen.push(...rows.map(({ g }) => g))
      }
      return seen
    }
    await here.check(
      range(n % 9).map((g) => g + 1),
      read(),
    )
  },

  terminate: (here: Here, { n }: Drawn) => here.world.terminate(n),

  evict(here: Here) {
    here.world.pool.evict()
  },
}

const weights: Partial<Record<keyof typeof kinds, number>> = {
  integer: 20,
  text: 8,
  plan: 10,
  insert: 8,
  add: 6,
  cancelled: 4,
  cancelledInsert: 3,
  timeout: 2,
  signal: 2,
}
const calm = (Object.keys(kinds) as (keyof typeof kinds)[]).filter((kind) => kind !== 'terminate' && kind !== 'evict')

/** Everything, or the usual and a little besides, so that pipelines become long. */
const mixtures = fc.oneof(
  fc.constant(calm),
  fc.subarray(calm, { maxLength: 4 }).map((some) => some.concat('integer', 'plan', 'insert', 'text', 'add')),
)

const settings = fc.record({
  max: fc.integer({ min: 1, max: 3 }),
  pipelining: fc.integer({ min: 2, max: 16 }),
  order: fc.constantFrom('lifo' as const, 'fifo' as const),
  /** Whether sessions are ended. */
  deadly: fc.boolean(),
})

const run = fc.record({ settings, mixture: mixtures }).chain(({ settings: how, mixture }) => {
  const usual = mixture.map((kind) => ({ weight: 10 * (weights[kind] ?? 1), arbitrary: fc.constant(kind) }))
  const rare = [{ weight: 3, arbitrary: fc.constant(how.deadly ? ('terminate' as const) : ('evict' as const)) }]
  const operation: fc.Arbitrary<Drawn> = fc.record({
    kind: fc.oneof(...usual, ...rare),
    n: fc.nat({ max: 10_000 }),
    turns: fc.nat({ max: 25 }),
    yes: fc.boolean(),
    text: fc.string({ unit: fc.constantFrom('a', 'ä', '漢', '😀', "'", '\\', ' '), maxLength: 12 }),
  })
  const all = fc.array(operation, { minLength: inOneRun, maxLength: inOneRun, size: 'max' })
  return fc.record({ how: fc.constant(how), all })
})

/** One operation, which is waited for no longer than it may take. */
async function perform(world: World, drawn: Drawn): Promise<void> {
  const here = new Here(world, drawn)
  count(`operation ${drawn.kind}`)
  let timer: NodeJS.Timeout | undefined
  const hangs = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      here.report(`hangs, ${JSON.stringify(world.pool.stats())}`)
      resolve()
    }, longestMs)
  })
  const ended = (async () => await kinds[drawn.kind](here, drawn))().catch((error: unknown) => here.report(error))
  await Promise.race([ended, hangs])
  clearTimeout(timer)
}

/** Whether the tables are as the model says. */
async function compare(wrong: string[]): Promise<void> {
  const rows = await outside<{ id: number; times: number }[]>`select id, count(*)::int as times from kept group by id`
  const found = new Map(rows.map(({ id, times }) => [id, times]))
  for (const [id, state] of model.kept) {
    const times = found.get(id) ?? 0
    const isRight = state === 'there' ? times === 1 : state === 'not there' ? times === 0 : times <= 1
    if (!isRight) wrong.push(`row ${id} is to be ${state}, and is there ${times} times`)
  }
  for (const id of found.keys()) if (!model.kept.has(id)) wrong.push(`row ${id} was not asked for`)
  for (const { slot, n } of await outside<{ slot: number; n: number }[]>`select slot, n from tally`) {
    const { least, most } = model.tally[slot] ?? { least: 0, most: 0 }
    if (n < least || n > most) wrong.push(`slot ${slot} was raised ${n} times, not ${least} to ${most} times`)
  }
}

test(
  `queries that share connections have their own answers and effects, whatever happens (PIPELINING_SEED=${seed})`,
  async () => {
    const startedAt = performance.now()
    let acquires = 0
    const property = fc.asyncProperty(run, async ({ how, all }) => {
      const { deadly, ...options } = how
      count(deadly ? 'deadly runs' : 'runs')
      const pool = createPool(db.url, { ...options, resetTimeoutMs: 2_000 })
      const world = new World(pool)
      let next = 0
      const caller = async (): Promise<void> => {
        for (let drawn = all[next++]; drawn && world.wrong.length === 0; drawn = all[next++])
          await perform(world, drawn)
      }
      await Promise.all(range(callers).map(caller))
      expect(world.wrong).toEqual([])
      await givenBack(db, pool)
      await compare(world.wrong)
      expect(world.wrong).toEqual([])
      acquires += pool.stats().acquires
      expect(await pool.close()).toEqual({ revoked: 0 })
      expect(pool.stats()).toMatchObject({ open: 0, closing: 0, badReturns: deadly ? expect.any(Number) : 0 })
      expect((await db.sessions()).map(({ name }) => name)).toEqual(['outside'])
    })
    // What happens is a matter of time: a smaller case is another one.
    await fc.assert(property, { seed, numRuns: Math.ceil(operations / inOneRun), endOnFailure: true })
    counts['acquires'] = acquires
    if (env['PIPELINING_FIGURES']) {
      const sorted = Object.entries(counts).toSorted(([one], [two]) => one.localeCompare(two))
      console.log(`${operations} operations, ${Math.round(performance.now() - startedAt)} ms, PIPELINING_SEED=${seed}`)
      console.log(sorted.map(([what, times]) => `${times} ${what}`).join('\n'))
    }
    // Else it has shown nothing.
    expect(acquires).toBeLessThan(0.7 * operations)
  },
  60_000 + operations * 20,
)
