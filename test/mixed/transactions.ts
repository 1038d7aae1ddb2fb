import { AsyncResource } from 'node:async_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { TransactionOutcomeUnknownError } from '../../src/index.ts'
import type { Isolation, PostgresSql, TransactionOptions, TransactionSql } from '../../src/postgres/index.ts'
import { lookForLeaks } from './canary.ts'
import { codeOf, same } from './here.ts'
import type { Here } from './here.ts'
import { Rows } from './model.ts'
import type { Unit } from './model.ts'
import { anyQuery, runAny, someSignal } from './one-shots.ts'
import { runQuery } from './queries.ts'
import { abandon, copyIn } from './streams.ts'
import type { CopyInEnd } from './streams.ts'

/** One attempt of a transaction, or a savepoint in it, as whoever writes its callback sees it. */
interface Inside {
  readonly here: Here
  readonly unit: Unit
  readonly sql: TransactionSql
  readonly rows: Rows
  readonly depth: number
  /** The attempt as a whole: for what outlives it. */
  readonly late: (() => void)[]
  /** A statement has failed that must keep it from being committed. */
  failed: boolean
  /** Something of it was left open. */
  open: boolean
}

let lastRow = 0

/** What says that a query has changed nothing. */
const notRun: ReadonlySet<string> = new Set(['25P02', 'ERR_LEASE_RELEASED', 'ERR_SESSION_BUSY'])

/** `pool.transaction()`, with whatever may happen inside. */
export async function transaction(here: Here): Promise<void> {
  const { pool, world, random } = here
  const unit = world.model.unit(here)
  const options = someOptions(here)
  here.trace.push(JSON.stringify(options))
  const own = random.chance(0.15) ? here.error() : undefined
  const n = here.nonce()
  let inside: Inside | undefined
  const late: (() => void)[] = []
  excuse(here, options)
  try {
    const result = await pool.transaction(async (sql) => {
      inside = { here, unit, sql, rows: new Rows(), depth: 0, late, failed: false, open: false }
      // If it ends without a word it may be any of both.
      await steps(inside)
      if (own) throw own
      return n
    }, options)
    same(result, n)
    if (own) here.report('answer', 'transaction()', 'committed though its callback has thrown')
    if (inside?.failed && !options.rollback)
      here.report('model', 'transaction()', 'committed though a statement failed')
    if (inside?.open) here.report('model', 'transaction()', 'committed with something open')
    unit.end(options.rollback ? 'rolled back' : 'committed', inside?.rows ?? new Rows())
    here.note(options.rollback ? 'transaction() rolled back' : 'transaction() committed')
  } catch (error) {
    unit.end(error instanceof TransactionOutcomeUnknownError ? 'unknown' : 'rolled back', inside?.rows ?? new Rows())
    const expected = (inside?.failed && isServers(here, error)) || (inside?.open && codeOf(error) === 'ERR_UNFINISHED')
    if (!expected) here.judge('transaction()', error)
  }
  for (const fn of late) fn()
}

const isServers = (here: Here, error: unknown): boolean => error instanceof here.pool.sql.PostgresError

function someOptions(here: Here): TransactionOptions {
  const { random } = here
  const options: TransactionOptions = {}
  if (random.chance(0.2))
    options.isolation = random.of<Isolation>(['read committed', 'repeatable read', 'serializable'])
  if (random.chance(0.2)) options.lazy = true
  if (random.chance(0.1)) options.rollback = true
  if (random.chance(0.2)) options.retries = random.from(0, 3)
  if (random.chance(0.12)) options.timeoutMs = random.from(1, 40)
  if (random.chance(0.1)) options.signal = someSignal(here)
  return options
}

function excuse(here: Here, { isolation, timeoutMs, signal }: TransactionOptions): void {
  if (isolation && isolation !== 'read committed') here.allow('40001')
  if (timeoutMs) here.allow('ERR_TRANSACTION_TIMEOUT', 'ERR_ACQUIRE_TIMEOUT')
  // What runs then is cancelled; what was to run is not any more.
  if (timeoutMs || signal) here.allow('57014', 'ERR_LEASE_RELEASED', 'ERR_STREAM_PREMATURE_CLOSE')
  // A COPY whose data nobody has read yet costs the connection then.
  if (timeoutMs || signal) here.allow('ERR_CONNECTION_LOST')
}

async function steps(inside: Inside): Promise<void> {
  const { here, sql } = inside
  const { random } = here
  if (random.chance(0.3)) await inTransaction(inside, () => lookForLeaks(sql, here, 'transaction'))
  const count = random.from(0, inside.depth === 0 ? 5 : 3)
  if (random.chance(0.25)) await Promise.all(Array.from({ length: count }, () => parallelStep(inside)))
  else for (let i = 0; i < count; i++) await step(inside)
  if (inside.depth === 0 && random.chance(0.04)) await leaveOpen(inside)
}

/** Errors that only the statements of a transaction have. */
async function inTransaction(inside: Inside, run: () => Promise<void>): Promise<void> {
  inside.here.allow('25P02')
  await run()
}

async function parallelStep(inside: Inside): Promise<void> {
  // Streams and cursors are in the way of what is run beside them: that is refused, or waits.
  inside.here.allow('ERR_SESSION_BUSY')
  if (inside.here.random.chance(0.6)) await insert(inside)
  else await step(inside)
}

async function step(inside: Inside): Promise<void> {
  const { random } = inside.here
  const kind = random.weighted([
    [8, insert],
    [5, anything],
    [3, savepoint],
    [1, copy],
    [1, notAwaited],
    [1, tooLate],
    [1, elsewhere],
    [1, betweenPortions],
    [2, inLimits],
    [0.7, contended],
  ] as const)
  await inTransaction(inside, () => kind(inside))
}

/** The tags that are all the same inside. */
function someTag({ here, sql }: Inside): PostgresSql {
  return here.random.chance(0.5) ? sql : here.pool.sql
}

async function insert(inside: Inside, tag: PostgresSql = someTag(inside)): Promise<void> {
  const { here, unit, rows } = inside
  const row = ++lastRow
  // It counts from here on: what fails below has to say that it is not there.
  rows.maybe.add(row)
  const outcome = await here.attempt('insert in a transaction', async () => {
    same(await tag`insert into unit_row (unit, row) values (${unit.number}, ${row}) returning row`, [{ row }])
  })
  here.trace.push(`row ${row}`)
  if (outcome.was === 'answered') rows.sure.add(row)
  if (outcome.was === 'answered' || notRun.has(codeOf(outcome.error))) rows.maybe.delete(row)
}

async function anything(inside: Inside): Promise<void> {
  const { here } = inside
  const query = anyQuery(here)
  const { was } = await runQuery(someTag(inside), here, query)
  if (was === 'failed') inside.failed = true
}

/** Kept or undone: by its callback, or by a statement in it. */
async function savepoint(inside: Inside): Promise<void> {
  const { here, depth } = inside
  const { random, pool } = here
  if (depth >= 3) return
  const own = random.chance(0.3) ? here.error() : undefined
  let within: Inside | undefined
  const callback = async (sql: TransactionSql): Promise<void> => {
    within = { ...inside, sql, depth: depth + 1, rows: new Rows(), failed: false, open: false }
    await steps(within)
    if (own) throw own
  }
  try {
    await (random.chance(0.5) ? inside.sql.savepoint(callback) : pool.transaction(callback))
    if (within?.failed) here.report('model', 'savepoint', 'kept though a statement in it has failed')
    if (within) inside.rows.add(within.rows)
  } catch (error) {
    if (!(within?.failed && isServers(here, error))) here.judge('savepoint', error)
  }
}

async function copy(inside: Inside): Promise<void> {
  const { here, unit } = inside
  const end = here.random.of<CopyInEnd>(['finished', 'finished', 'destroyed', 'refused'])
  const rows = Array.from({ length: here.random.from(1, 4) }, () => ++lastRow)
  for (const row of rows) inside.rows.maybe.add(row)
  here.allow('57014')
  const run = (): Promise<void> => copyIn(someTag(inside), here, { unit: unit.number, rows, end })
  const { was } = await here.attempt(`copy in a transaction, ${end}`, run, end === 'refused' ? '22P02' : undefined)
  if (was === 'failed') inside.failed = true
  if (was !== 'answered') return
  for (const row of rows) {
    inside.rows.maybe.delete(row)
    inside.rows.sure.add(row)
  }
}

/** What was run before the end is part of it. */
async function notAwaited(inside: Inside): Promise<void> {
  inside.here.allow('ERR_LEASE_RELEASED')
  void insert(inside)
  await Promise.resolve()
}

/** What is run after the end is nowhere, whatever it is called in. */
function tooLate({ here, unit, late }: Inside): Promise<void> {
  const { pool, random, world } = here
  const write = (): PromiseLike<unknown> =>
    pool.sql`insert into unit_row (unit, row) values (${unit.number}, ${-here.nonce()})`
  const made = write()
  const [one, other] = world.pools
  const another = (one?.pool === pool ? other : one)?.pool ?? pool
  const run = random.of([
    () => made,
    write,
    () => pool.within({ timeoutMs: 20_000 }, write),
    () => another.within({ timeoutMs: 20_000 }, write),
    () => another.transaction(() => write()),
  ])
  const attempt = (): void => void here.attempt('insert after the end', run, 'ERR_LEASE_RELEASED')
  late.push(AsyncResource.bind(attempt))
  return Promise.resolve()
}

/** Beside the transaction: it stays, whatever becomes of that. Such callers could wait for each other. */
async function elsewhere({ here }: Inside): Promise<void> {
  const { pool, random, world } = here
  const unit = world.model.unit(here)
  const rows = new Rows()
  const row = ++lastRow
  rows.maybe.add(row)
  unit.end('unknown', rows)
  here.allow('ERR_QUERY_TIMEOUT', 'ERR_ACQUIRE_TIMEOUT', 'ERR_TRANSACTION_TIMEOUT')
  const text = 'insert into unit_row (unit, row) values ($1, $2)'
  const independent = random.chance(0.5)
  const run = async (): Promise<void> => {
    if (!independent) return void (await pool.outside(() => pool.query(text, [unit.number, row], { timeoutMs: 200 })))
    const options = { independent: true, timeoutMs: 200 }
    await pool.transaction(() => pool.sql.unsafe(text, [unit.number, row]), options)
  }
  const { was } = await here.attempt(independent ? 'independent transaction' : 'outside()', run)
  if (was !== 'answered') return
  rows.maybe.delete(row)
  rows.sure.add(row)
  unit.end('committed', rows)
}

/** Between two portions of a cursor of the same transaction it is refused: it would wait for itself. */
async function betweenPortions(inside: Inside): Promise<void> {
  const { here, sql } = inside
  here.allow('ERR_SESSION_BUSY')
  await here.attempt('insert between two portions', async () => {
    const n = here.nonce()
    for await (const [row] of sql`select ${n}::int as n from generate_series(1, 6)`.cursor(1)) {
      same(row, { n })
      await insert(inside)
    }
  })
}

/** The same row for all: they wait for each other, or fail for another one's sake. */
async function contended({ here, sql }: Inside): Promise<void> {
  await here.attempt('update of one row', async () => {
    const rows = await sql`update contended set value = value + 1 where id = 1 returning id`
    same(rows, [{ id: 1 }])
  })
}

async function inLimits(inside: Inside): Promise<void> {
  const { here } = inside
  // A query that has met its deadline may have failed the transaction, or not.
  here.allow('ERR_QUERY_TIMEOUT', 'ERR_ACQUIRE_TIMEOUT', '57014', 'ERR_STREAM_PREMATURE_CLOSE')
  const timeoutMs = here.random.from(1, 20)
  await here.attempt('within() in a transaction', async () => {
    await here.pool.within({ timeoutMs }, async () => {
      await insert(inside, here.pool.sql)
      await runAny(inside.sql, here).then(({ was }) => (inside.failed ||= was === 'failed'))
    })
  })
}

async function leaveOpen(inside: Inside): Promise<void> {
  const { here, sql } = inside
  here.allow('25P02', 'ERR_SESSION_BUSY', 'ERR_UNFINISHED')
  const outcome = await here.attempt('left open in a transaction', () => abandon(sql, here))
  // A small COPY OUT is at its end, even if nobody has read it.
  inside.open = outcome.was === 'answered' && outcome.value !== 'out of data'
}

/** `pool.session()`: the same as a handle. */
export async function session(here: Here): Promise<void> {
  const { pool, world, random } = here
  const unit = world.model.unit(here)
  const { isolation, timeoutMs, signal } = someOptions(here)
  const options = { ...(isolation && { isolation }), ...(timeoutMs && { timeoutMs }), ...(signal && { signal }) }
  excuse(here, options)
  const handle = pool.session(options)
  const rows = new Rows()
  const inside: Inside = { here, unit, sql: handle.sql, rows, depth: 0, late: [], failed: false, open: false }
  const how = random.weighted([
    [5, 'commit'],
    [2, 'rollback'],
    [1, 'dispose'],
    [1, 'both'],
  ] as const)
  try {
    for (let i = random.from(0, 3); i > 0; i--) {
      // Only inside of `run` is the pool's tag the session's.
      if (random.chance(0.5)) await handle.run(() => inTransaction(inside, () => step(inside)))
      else await inTransaction(inside, () => insert(inside, handle.sql))
    }
    if (random.chance(0.1)) await sleep(random.from(0, 20))
    if (how === 'commit') await handle.commit()
    else if (how === 'both') await Promise.all([handle.commit(), handle.commit()])
    else if (how === 'rollback') await handle.rollback()
    else await handle[Symbol.asyncDispose]()
    const kept = how === 'commit' || how === 'both'
    if (kept && inside.failed) here.report('model', 'session()', 'committed though a statement failed')
    unit.end(kept ? 'committed' : 'rolled back', rows)
    here.note(`session(): ${how}`)
  } catch (error) {
    unit.end(error instanceof TransactionOutcomeUnknownError ? 'unknown' : 'rolled back', rows)
    if (!(inside.failed && isServers(here, error))) here.judge('session()', error)
  } finally {
    await handle[Symbol.asyncDispose]()
  }
  await here.attempt('query after the session', () => handle.sql`select 1`, 'ERR_LEASE_RELEASED')
  for (const fn of inside.late) fn()
}
