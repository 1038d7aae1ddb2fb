import type { Here } from './here.ts'

/** What is done to sessions from outside in the operation's time. Quiet times show errors that nothing explains. */
type Weather = 'calm' | 'cancels' | 'ends' | 'both'

const weathers: readonly Weather[] = ['calm', 'cancels', 'calm', 'ends', 'both']
const operationsOfOne = 200

export function weatherAt(seed: number, operation: number): Weather {
  return weathers[(Math.floor(operation / operationsOfOne) + seed) % weathers.length] ?? 'calm'
}

/** Any session on the database, at any moment. */
async function anySession(here: Here, fn: 'pg_terminate_backend' | 'pg_cancel_backend'): Promise<void> {
  const { db } = here.world
  await db.admin.unsafe(
    `select ${fn}(pid) from pg_stat_activity where datname = $1 and backend_type = 'client backend'
     order by md5(pid::text || $2) limit 1`,
    [db.name, String(here.operation)],
    { prepare: true },
  )
}

export async function terminate(here: Here): Promise<void> {
  const { faults } = here.world
  faults.terminated()
  await anySession(here, 'pg_terminate_backend')
  faults.terminated()
}

export async function cancel(here: Here): Promise<void> {
  const { faults } = here.world
  faults.cancelled()
  await anySession(here, 'pg_cancel_backend')
  faults.cancelled()
}

/** All connections are replaced, and none is taken from whoever has it. */
export function evict(here: Here): Promise<void> {
  here.pool.evict()
  return Promise.resolve()
}

export async function releaseIdle(here: Here): Promise<void> {
  await here.attempt('releaseIdle()', () => here.pool.releaseIdle())
}

export function resize(here: Here): Promise<void> {
  const { random, world, pool } = here
  const most = world.pools.find((one) => one.pool === pool)?.max ?? 1
  const max = random.from(Math.ceil(most / 2), most)
  pool.resize({ max, min: random.from(0, Math.min(2, max)) })
  return Promise.resolve()
}

export function stats(here: Here): Promise<void> {
  const { open, opening, closing, idle, leased, max } = here.pool.stats()
  const most = here.world.pools.find(({ pool }) => pool === here.pool)?.max ?? max
  if (open + opening + closing > most) here.report('lost', 'stats()', `${open} + ${opening} + ${closing} of ${most}`)
  if (idle + leased > open) here.report('lost', 'stats()', `${idle} + ${leased} of ${open}`)
  return Promise.resolve()
}
