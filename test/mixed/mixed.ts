import { createPool } from '../../src/postgres/index.ts'
import type { PostgresLease, PostgresPoolOptions } from '../../src/postgres/index.ts'
import type { TestDatabase } from '../support/database.ts'
import { createCanary } from './canary.ts'
import { Faults, Here, same, shown } from './here.ts'
import type { TestPool, World } from './here.ts'
import { lease, several, use } from './leases.ts'
import { Model, createModelTable } from './model.ts'
import { largeObject, listen, oneShot, probe, query, withLimits, within, write } from './one-shots.ts'
import { cancel, evict, releaseIdle, resize, stats, terminate, weatherAt } from './pool-calls.ts'
import { Random } from './random.ts'
import { session, transaction } from './transactions.ts'
import { Verdict } from './verdict.ts'

export interface MixedOptions {
  readonly db: TestDatabase
  readonly seed: number
  readonly operations: number
  /** How many are under way at a time. */
  readonly callers?: number
  /** Ends as soon as something is found. */
  readonly untilFirst?: boolean
}

type Operation = (here: Here) => Promise<void>

const usual: readonly (readonly [number, Operation])[] = [
  [30, oneShot],
  [8, probe],
  [6, query],
  [8, withLimits],
  [5, within],
  [8, write],
  [20, lease],
  [5, use],
  [2, several],
  [20, transaction],
  [8, session],
  [0.5, listen],
  [1, largeObject],
  [0.3, evict],
  [0.5, releaseIdle],
  [0.5, resize],
  [2, stats],
]

const longestOperationMs = 40_000

/**
 * Operations of every kind at random, many at a time, over two pools on one database, while sessions are cancelled and
 * ended from outside. Then rest, and a look at what is left. Resolves with what was found wrong, and how often what
 * happened.
 */
export async function mixed({
  db,
  seed,
  operations,
  callers = 24,
  untilFirst = false,
}: MixedOptions): Promise<Verdict> {
  const verdict = new Verdict()
  const random = new Random(seed)
  const limited = random.chance(0.5)
  await prepare(db)
  const common: PostgresPoolOptions = {
    resetTimeoutMs: 1_500,
    acquireTimeoutMs: 15_000,
    connectTimeoutMs: 8_000,
    idleTimeoutMs: random.of([300, 60_000]),
    order: random.of(['lifo', 'fifo']),
    ...(limited ? { limit: { name: db.name, connections: 7 } } : {}),
  }
  const one = createPool(db.url, {
    ...common,
    max: 6,
    pipelining: 4,
    connection: { application_name: 'mixed-a' },
  })
  const other = createPool(db.url, {
    ...common,
    max: 4,
    connection: { application_name: 'mixed-b' },
    onOpen: async (sql) => {
      await sql`set mixed.hook = 'set'`
    },
  })
  const pools: readonly TestPool[] = [
    { pool: one, name: 'mixed-a', max: 6 },
    { pool: other, name: 'mixed-b', max: 4 },
  ]
  const world: World = { db, pools, verdict, model: new Model(), faults: new Faults() }
  const onUnhandled = (reason: unknown): void => {
    verdict.report({ rule: 'unhandled', operation: -1, what: 'the process', detail: shown(reason) })
  }
  process.on('unhandledRejection', onUnhandled)
  let next = 0
  const caller = async (): Promise<void> => {
    while (next < operations && !(untilFirst && verdict.violations.length > 0)) await run(world, seed, next++)
  }
  try {
    await Promise.all(Array.from({ length: callers }, caller))
    await rest(world)
  } finally {
    process.off('unhandledRejection', onUnhandled)
  }
  return verdict
}

async function prepare(db: TestDatabase): Promise<void> {
  const pool = createPool(db.url, { max: 1 })
  await pool.sql.unsafe(createModelTable)
  await pool.sql.unsafe(createCanary)
  await pool.close()
}

function drawn(seed: number, operation: number, random: Random): Operation {
  const weather = weatherAt(seed, operation)
  if ((weather === 'cancels' || weather === 'both') && random.chance(0.03)) return cancel
  if ((weather === 'ends' || weather === 'both') && random.chance(0.02)) return terminate
  return random.weighted(usual)
}

/** One operation, which is waited for no longer than it may take. */
async function run(world: World, seed: number, number: number): Promise<void> {
  const random = new Random(seed, number)
  const operation = drawn(seed, number, random)
  const here = new Here(world, random, number)
  here.trace.push(operation.name)
  let timer: NodeJS.Timeout | undefined
  const hangs = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      here.report('hang', operation.name, `at ${[...here.doing].join(', ')}; ${JSON.stringify(here.pool.stats())}`)
      resolve()
    }, longestOperationMs)
  })
  const ended = operation(here).catch((error: unknown) => {
    here.judge(operation.name, error)
  })
  await Promise.race([ended, hangs])
  clearTimeout(timer)
}

/** Everybody finishes, and what is true then has to be true in the model, the pools and the server. */
async function rest({ db, pools, verdict, model }: World): Promise<void> {
  const report = (rule: 'lost' | 'left', what: string, detail: string): void =>
    verdict.report({ rule, operation: -1, what, detail })
  // Where they share a limit, one's minimum is what the other cannot have.
  for (const { pool, max } of pools) pool.resize({ min: 0, max })
  for (const { pool, name, max } of pools) {
    const isAtRest = (): boolean => {
      const { open, idle, leased, waiting, opening, closing } = pool.stats()
      return leased + waiting + opening + closing === 0 && open === idle
    }
    if (!(await within5s(isAtRest))) report('left', name, JSON.stringify(pool.stats()))
    const counted = async (): Promise<number> => (await sessionsOf(db, name)).length
    if (!(await within5s(async () => (await counted()) === pool.stats().open))) {
      report('left', name, `${JSON.stringify(await sessionsOf(db, name))}; ${JSON.stringify(pool.stats())}`)
    }
    await fill(db, { pool, name, max }, (detail) => report('lost', name, detail))
    await pool.releaseIdle()
  }
  await compare(db, model, verdict)
  for (const { pool, name } of pools) {
    const { revoked } = await pool.close()
    if (revoked > 0) report('left', name, `${revoked} leases were revoked`)
  }
  if (!(await within5s(async () => (await db.sessions()).length === 0))) {
    report('left', 'the server', JSON.stringify(await db.sessions()))
  }
}

async function compare(db: TestDatabase, model: Model, verdict: Verdict): Promise<void> {
  const pool = createPool(db.url, { max: 1 })
  await model.compare(pool.sql, verdict)
  await pool.close()
}

/** It can open exactly as many as it may. */
async function fill(db: TestDatabase, { pool, name, max }: TestPool, lost: (detail: string) => void): Promise<void> {
  const leases: PostgresLease[] = []
  try {
    for (let i = 0; i < max; i++) leases.push(await pool.acquire({ timeoutMs: 8_000 }))
    await Promise.all(leases.map(async ({ sql }, i) => same(await sql`select ${i}::int as i`, [{ i }])))
    const counted = (await sessionsOf(db, name)).length
    if (counted !== max) lost(`${counted} sessions of ${max} leases`)
    const over = await pool.acquire({ timeoutMs: 30 }).catch(() => undefined)
    if (over) lost(`more than ${max} leases`)
    await over?.release()
  } catch (error) {
    lost(`${leases.length} leases of ${max}: ${shown(error)}; ${JSON.stringify(pool.stats())}`)
  }
  await Promise.all(leases.map((one) => one.release()))
}

async function sessionsOf(db: TestDatabase, name: string): Promise<readonly object[]> {
  return (await db.sessions()).filter((one) => one.name.startsWith(`${name} `))
}

async function within5s(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  const until = performance.now() + 5_000
  while (!(await condition())) {
    if (performance.now() > until) return false
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  }
  return true
}
