import { setTimeout as sleep } from 'node:timers/promises'
import { AcquireTimeoutError } from '../../src/index.ts'
import type { PostgresLease } from '../../src/postgres/index.ts'
import { dirt, lookForLeaks, uncommitted } from './canary.ts'
import { codeOf, same } from './here.ts'
import type { Here } from './here.ts'
import { runAny, someSignal } from './one-shots.ts'
import { abandon } from './streams.ts'

/** How late an acquire may be answered on a machine that has much else to do. */
const slackMs = 4_000

/** A lease with whatever its holder does, leaves behind, and how it ends. */
export async function lease(here: Here): Promise<void> {
  const got = await acquire(here)
  if (!got) return
  const { random } = here
  const started: Promise<unknown>[] = []
  try {
    if (random.chance(0.7)) await lookForLeaks(got.sql, here, 'lease')
    const steps = random.from(0, 3)
    if (random.chance(0.4)) started.push(...Array.from({ length: steps }, () => runAny(got.sql, here)))
    else for (let i = 0; i < steps; i++) await runAny(got.sql, here)
    if (random.chance(0.15)) {
      here.allow('57014', 'ERR_STREAM_PREMATURE_CLOSE')
      started.push(runAny(got.sql, here))
      if (random.chance(0.7)) await sleep(random.from(0, 6))
      tryCancel(here, got)
    }
    if (random.chance(0.3)) await Promise.all(started)
    if (random.chance(0.35)) await soil(here, got)
    if (random.chance(0.06)) await leaveOpen(here, got)
  } finally {
    // What still waits for its turn is not sent any more.
    here.allow('ERR_LEASE_RELEASED', '57014', 'ERR_CONNECTION_LOST', 'ERR_SESSION_BUSY', 'ERR_STREAM_PREMATURE_CLOSE')
    await end(here, got)
    await Promise.all(started)
  }
  await here.attempt('query after the release', () => got.sql`select 1`, 'ERR_LEASE_RELEASED')
}

async function acquire(here: Here): Promise<PostgresLease | undefined> {
  const { random, pool } = here
  if (random.chance(0.1)) return pool.tryAcquire()
  const impatient = random.chance(0.2)
  const timeoutMs = impatient ? random.from(0, 30) : undefined
  const signal = random.chance(0.15) ? someSignal(here) : undefined
  const startedAt = performance.now()
  let got: PostgresLease | undefined
  await here.attempt('acquire()', async () => {
    try {
      got = await pool.acquire({ ...(signal && { signal }), ...(timeoutMs === undefined ? {} : { timeoutMs }) })
    } catch (error) {
      const took = performance.now() - startedAt
      if (timeoutMs === undefined || !(error instanceof AcquireTimeoutError)) throw error
      if (took > timeoutMs + slackMs) here.report('late', 'acquire()', `${took} ms with a deadline of ${timeoutMs} ms`)
    }
  })
  return got
}

function tryCancel(here: Here, got: PostgresLease): void {
  try {
    got.cancel()
  } catch (error) {
    here.judge('lease.cancel()', error)
  }
}

/** Anything may come of what is run then; no answer may be wrong. */
async function soil(here: Here, got: PostgresLease): Promise<void> {
  const { random } = here
  for (let i = random.from(1, 2); i > 0; i--) {
    // What comes after it could commit it.
    const text = i === 1 && random.chance(0.1) ? uncommitted(here.nonce()) : random.of(dirt)(here.nonce())
    here.doing.add(text)
    try {
      await got.sql.unsafe(text)
    } catch (error) {
      judgeSoiled(here, text, error)
    }
    here.doing.delete(text)
    if (random.chance(0.5)) continue
    const n = here.nonce()
    try {
      same(random.chance(0.5) ? await got.sql.unsafe(`select ${n} as n`) : await got.sql`select ${n}::int as n`, [
        { n },
      ])
    } catch (error) {
      judgeSoiled(here, `a query after ${text}`, error)
    }
  }
}

function judgeSoiled(here: Here, what: string, error: unknown): void {
  if (error instanceof here.pool.sql.PostgresError && codeOf(error) !== '57014') return
  here.judge(what.replace(/\d{4,}/, 'n'), error)
}

async function leaveOpen(here: Here, got: PostgresLease): Promise<void> {
  // What was run before may still be on its way, or the lease has been soiled.
  here.allow('25P02', 'ERR_SESSION_BUSY', '42501', '42P01', '25006', '26000', '57014')
  await here.attempt('left open', () => abandon(got.sql, here))
}

async function end(here: Here, got: PostgresLease): Promise<void> {
  const { random } = here
  const how = random.weighted([
    [5, 'release'],
    [2, 'not awaited'],
    [1, 'destroy'],
    [1, 'twice'],
    [1, 'disposed'],
  ] as const)
  await here.attempt(`lease ended: ${how}`, async () => {
    if (how === 'destroy') await got.destroy('for the test')
    else if (how === 'disposed') await got[Symbol.asyncDispose]()
    else if (how === 'not awaited') void got.release()
    else {
      const released = got.release()
      if (how === 'twice') await got.release()
      await released
    }
  })
}

/** `pool.use()`, also one that throws. */
export async function use(here: Here): Promise<void> {
  const { random, pool } = here
  const own = random.chance(0.2) ? here.error() : undefined
  const n = here.nonce()
  await here.attempt('use()', async () => {
    const result = await pool.use(async (sql, held) => {
      if (random.chance(0.5)) await lookForLeaks(sql, here, 'lease')
      await runAny(sql, here)
      if (random.chance(0.3)) await soil(here, held)
      if (own) throw own
      return n
    })
    same(result, n)
  })
}

/** Several leases at once, by one who takes no more than there are. */
export async function several(here: Here): Promise<void> {
  const { pool } = here
  const got: PostgresLease[] = []
  while (got.length < 3) {
    const lent = pool.tryAcquire()
    if (!lent) break
    got.push(lent)
  }
  await Promise.all(got.map((one) => runAny(one.sql, here)))
  await Promise.all(got.map((one) => one.release()))
}
