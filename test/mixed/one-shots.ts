import { setTimeout as sleep } from 'node:timers/promises'
import type { PostgresSql, QueryLimits } from '../../src/postgres/index.ts'
import { lookForLeaks } from './canary.ts'
import { Wrong, same } from './here.ts'
import type { Here, Outcome } from './here.ts'
import { Rows } from './model.ts'
import { queries, runQuery } from './queries.ts'
import type { Query } from './queries.ts'
import { copyIn, streams } from './streams.ts'
import type { CopyInEnd } from './streams.ts'

/** How late something may be on a machine that has much else to do. */
const slackMs = 4_000

const all: readonly (readonly [number, Query])[] = [...queries, ...streams]

export const anyQuery = (here: Here): Query => here.random.weighted(all)

export function runAny(sql: PostgresSql, here: Here): Promise<Outcome<unknown>> {
  return runQuery(sql, here, anyQuery(here))
}

/** One query on any connection. */
export async function oneShot(here: Here): Promise<void> {
  await runAny(here.pool.sql, here)
}

export async function probe(here: Here): Promise<void> {
  await lookForLeaks(here.pool.sql, here, 'lease')
}

/** `pool.query()`, with and without a deadline that it may miss. */
export async function query(here: Here): Promise<void> {
  const { random, pool } = here
  const n = here.nonce()
  const limits = someLimits(here)
  await inTime(here, limits, 'query()', async () => {
    const text = `select $1::int as n from pg_sleep(${random.from(0, 6) / 1_000})`
    same(await pool.query(text, [n], { ...limits, prepare: random.chance(0.5) }), [{ n }])
  })
}

/** `pool.with()`: the same for all that a tag can do. */
export async function withLimits(here: Here): Promise<void> {
  const limits = someLimits(here)
  const { sql } = here.pool.with(limits)
  const kind = anyQuery(here)
  // The end of a stream that its reader has left to itself is not seen by who destroys it.
  await inTime(here, limits, `with(): ${kind.name}`, () => kind.run(sql, here), kind.fails)
}

/** `pool.within()`: several queries and leases with one deadline. */
export async function within(here: Here): Promise<void> {
  const { random, pool } = here
  const limits = someLimits(here)
  const steps = random.from(1, 4)
  const parallel = random.chance(0.5)
  here.allow('ERR_ACQUIRE_TIMEOUT')
  await inTime(here, limits, 'within()', async () => {
    const step = async (): Promise<void> => {
      const way = random.from(0, 3)
      if (way === 0) await here.attempt('within() and use()', () => pool.use((sql) => runAny(sql, here)))
      else await runAny(pool.sql, here)
    }
    await pool.within(limits, async () => {
      if (parallel) await Promise.all(Array.from({ length: steps }, step))
      else for (let i = 0; i < steps; i++) await step()
    })
  })
}

/** Limits of which some are met, and the reason that is to be seen then. */
function someLimits(here: Here): QueryLimits {
  const { random } = here
  const limits: { timeoutMs?: number; signal?: AbortSignal } = {}
  if (random.chance(0.6)) {
    limits.timeoutMs = random.weighted([
      [3, random.from(1, 10)],
      [2, random.from(10, 50)],
      [2, 20_000],
    ])
    if (limits.timeoutMs < 20_000) here.allow('ERR_QUERY_TIMEOUT')
  }
  if (random.chance(0.5)) limits.signal = someSignal(here)
  return limits
}

/** A signal that aborts at some time, or was before. */
export function someSignal(here: Here): AbortSignal {
  const { random } = here
  const controller = new AbortController()
  const reason = random.chance(0.5) ? here.error() : { of: here.nonce() }
  here.own.add(reason)
  const ms = random.from(-2, 25)
  if (ms < 0) controller.abort(reason)
  else void sleep(ms).then(() => controller.abort(reason))
  return controller.signal
}

async function inTime(
  here: Here,
  { timeoutMs = Infinity }: QueryLimits,
  what: string,
  run: () => Promise<unknown>,
  expected?: string,
): Promise<void> {
  const startedAt = performance.now()
  await here.attempt(what, run, expected)
  const took = performance.now() - startedAt
  // Streams are read to their end, which no deadline of the query speeds up by itself.
  if (timeoutMs <= 50 && took > timeoutMs + slackMs) {
    here.report('late', what, `took ${Math.round(took)} ms with a deadline of ${timeoutMs} ms`)
  }
}

/** Something that is written outside of any transaction. */
export async function write(here: Here): Promise<void> {
  const { random, world, pool } = here
  const unit = world.model.unit(here)
  const rows = new Rows()
  const count = random.from(1, 5)
  const numbers = Array.from({ length: count }, (_, i) => i)
  // Until it is known better: a killed run may have done it.
  for (const row of numbers) rows.maybe.add(row)
  const kept = (): void => {
    const sure = new Rows()
    for (const row of numbers) sure.sure.add(row)
    unit.end('committed', sure)
  }
  unit.end('unknown', rows)
  const way = random.weighted([
    [4, 'insert'],
    [2, 'limited'],
    [3, 'copy'],
  ] as const)
  if (way === 'copy') {
    const end = random.of<CopyInEnd>(['finished', 'finished', 'destroyed', 'refused'])
    const expected = end === 'refused' ? '22P02' : undefined
    here.allow('57014')
    const copy = (): Promise<void> => copyIn(pool.sql, here, { unit: unit.number, rows: numbers, end })
    const { was } = await here.attempt(`copy in, ${end}`, copy, expected)
    if (was === 'answered') kept()
    else if (was === 'failed') unit.end('rolled back', new Rows())
    return
  }
  const limits = way === 'limited' ? someLimits(here) : {}
  const insert = async (): Promise<void> => {
    const written = await pool.with(limits).sql<{ row: number }[]>`
      insert into unit_row (unit, row) select ${unit.number}::int, g from generate_series(0, ${count - 1}::int) g
      returning row`
    same(
      written.map(({ row }) => row),
      numbers,
    )
  }
  const { was } = await here.attempt(`insert, ${way}`, insert)
  if (was === 'answered') kept()
}

/** A notification reaches who listens, or a gap is told. */
export async function listen(here: Here): Promise<void> {
  const { pool, random } = here
  const n = here.nonce()
  let heard: string | undefined
  let gaps = 0
  const onGap = (): void => void gaps++
  const startedAt = performance.now()
  await here.attempt('listen()', async () => {
    const listener = await pool.listen(
      `mixed${random.from(1, 3)}`,
      (text) => (heard = text === `${n}` ? text : heard),
      {
        onGap,
      },
    )
    try {
      await pool.sql.notify(listener.channel, `${n}`)
      while (heard === undefined && gaps === 0) {
        if (performance.now() > startedAt + 15_000) throw new Wrong(`neither ${n} nor a gap was heard of`, 'hang')
        await sleep(2)
      }
    } finally {
      await listener.unlisten()
    }
  })
}

/** A large object on the pool. */
export async function largeObject(here: Here): Promise<void> {
  const n = here.nonce()
  await here.attempt('largeObject()', async () => {
    const object = await here.pool.sql.largeObject()
    try {
      await object.write(Buffer.from(`${n}`))
      await object.seek(0)
      const [row] = (await object.read(100)) as unknown as { data: Buffer }[]
      same(String(row?.data), `${n}`)
    } finally {
      await object.close()
    }
  })
}
