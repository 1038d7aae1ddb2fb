import type { Clock } from '../clock.ts'
import { systemClock } from '../clock.ts'
import type { PoolOptions } from '../options.ts'
import { outsideAll } from './ambient.ts'
import type { Connection } from './connection.ts'
import { PostgresDriver } from './driver.ts'
import type { PostgresHooks, PostgresSettings } from './options.ts'

type Callback = (...values: never[]) => unknown

function outside<F extends Callback>(fn: F): F {
  return ((...values: Parameters<F>) => outsideAll(() => fn(...values))) as F
}

function each<T extends object>(callbacks: T): T {
  const entries = Object.entries(callbacks).map(([name, fn]) => [name, outside(fn as Callback)])
  return Object.fromEntries(entries) as T
}

/**
 * Whatever a pool does may be caused by a caller in a transaction, or by one whose transaction has long ended. Timers,
 * hooks, `log` and `password` are the pool's own: a query that they make on it is in nobody's transaction.
 */
export function callsOutside(settings: PostgresSettings): PostgresSettings {
  const { hooks, password, pool } = settings
  return {
    ...settings,
    hooks: each<PostgresHooks>(hooks),
    password: typeof password === 'string' ? password : outside(password),
    pool: { ...pool, ...(pool.log ? { log: outside(pool.log) } : {}), clock: clockOutside(pool) },
  }
}

/** Opens sockets in nobody's transaction: all that they report, for as long as they live, comes where they were opened. */
export class OutsideDriver extends PostgresDriver {
  override open(options: { signal: AbortSignal; tag: string }): Promise<Connection> {
    return outsideAll(() => super.open(options))
  }
}

function clockOutside({ clock = systemClock }: PoolOptions): Clock {
  const setTimer: Clock['setTimer'] = (fn, ms, keepAlive) => outsideAll(() => clock.setTimer(fn, ms, keepAlive))
  return {
    now: () => clock.now(),
    ...(clock.coarse ? { coarse: () => clock.coarse?.() ?? clock.now() } : {}),
    setTimer,
  }
}
