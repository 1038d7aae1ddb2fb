import type { Clock } from './clock.ts'
import { longestTimerMs, systemClock } from './clock.ts'
import type { Driver, ResetMode } from './driver.ts'
import type { CloseReason } from './stats.ts'
import { optionRangeError, optionTypeError } from './errors.ts'
import { loopStops } from './frozen-loop.ts'
import type { PoolEvent } from './watch.ts'

/** A limit over all threads: the number of connections that all pools which join it may have together. */
export type LimitOption = number | { readonly name?: string; readonly connections: number }

/** Everything about a pool but the driver. All times are milliseconds. */
export interface PoolOptions {
  /** Shown in errors, logs and metrics. Default: `'pool-1'`, `'pool-2'`… */
  name?: string
  /**
   * Connections kept open even when nobody needs them, from the first use on. 0 … `max`.
   * @default 0
   */
  min?: number
  /**
   * Connections that this pool never exceeds; opening and closing ones count. At least 1.
   * @default 10
   */
  max?: number
  /**
   * Idle connections above it close on release, unless somebody waits. `min` … `max`; 0 keeps none.
   * @default max
   */
  maxIdle?: number
  /**
   * Which idle connection is lent first: the one used last, so that the others can be given up, or all in turn.
   * @default 'lifo'
   */
  order?: 'lifo' | 'fifo'
  /**
   * One deadline for the whole of an acquire: queue, permit, connect and ping. `Infinity` waits for ever.
   * Too short for a connect, and a cold pool never serves anybody.
   * @default 30_000
   */
  acquireTimeoutMs?: number
  /**
   * An acquire that finds so many in the queue fails at once with a `QueueFullError`. Who waits for a connection to open
   * is in the queue, too: with 0, only idle connections are ever lent.
   * @default Infinity
   */
  maxWaiting?: number
  /**
   * Deadline of one attempt to connect.
   * @default 10_000
   */
  connectTimeoutMs?: number
  /**
   * Connections that were not needed for this long are closed, down to `min`. `Infinity` keeps them.
   * @default 60_000
   */
  idleTimeoutMs?: number
  /**
   * The age at which a connection is replaced, minus up to 10 % drawn when it opens, so that not all go at once.
   * @default 1_800_000
   */
  maxLifetimeMs?: number
  /**
   * Leases after which a connection is replaced. At least 1.
   * @default Infinity
   */
  maxUses?: number
  /**
   * A connection that idled longer is pinged before it is lent. 0 pings always, `Infinity` never.
   * @default 1_000
   */
  pingAfterIdleMs?: number
  /**
   * How a session is cleaned on release: `'auto'` as far as the driver knows it to be needed, `'full'` always,
   * `'none'` never.
   * @default 'auto'
   */
  reset?: ResetMode
  /**
   * How long a release may take, a query that still runs included, before the connection is closed instead.
   * @default 5_000
   */
  resetTimeoutMs?: number
  /**
   * How long `close()` waits for leases before it revokes them.
   * @default 10_000
   */
  closeTimeoutMs?: number
  /**
   * One limit over this pool and all others of the same name, in all threads. The main thread makes its broker at
   * once, other threads join it with their first use.
   */
  limit?: LimitOption
  /** The name of a broker that was made with `createBroker`, to be joined with the first use. */
  broker?: string
  /**
   * A lease that is held longer is reported, once, with the stack that acquired it: as the event `millpond:leak`, or
   * as a warning of the process if nobody listens. Noting that stack costs some microseconds for each acquire.
   * @default Infinity (off)
   */
  leakAfterMs?: number
  /**
   * Whether `stats()` tells how long leases are held.
   * @default false
   */
  timings?: boolean
  /** Gets every event of this pool, for those who do not want channels. */
  log?: (event: PoolEvent) => void
  /** Where time comes from; for tests. Default: the system's monotonic clock. */
  clock?: Clock
}

/** The options of the generic pool. */
export interface GenericPoolOptions<C> extends PoolOptions {
  /** Opens, checks and closes the connections. */
  driver: Driver<C>
  /**
   * Configures a new connection before anybody gets it, within `connectTimeoutMs`. If it throws, the connection is
   * closed, and that counts as a failure to connect.
   */
  onOpen?: (connection: C) => unknown
  /**
   * Looks at a connection before it is lent, within the acquire's deadline. False, or throwing, closes it; the acquire
   * goes on with the next one.
   */
  onAcquire?: (connection: C) => unknown
  /** Looks at a connection that was released and cleaned, within `resetTimeoutMs`. False, or throwing, closes it. */
  onRelease?: (connection: C) => unknown
  /** Hears of a connection whose end is certain. What it throws becomes an event. */
  onClose?: (connection: C, reason: CloseReason) => unknown
}

/** The hooks of a pool, all optional. */
export type Hooks<C> = Pick<GenericPoolOptions<C>, 'onOpen' | 'onAcquire' | 'onRelease' | 'onClose'>

/** The names of all hooks, for those who have to tell them from other options. */
export const hookNames = ['onOpen', 'onAcquire', 'onRelease', 'onClose'] as const

/** Takes the hooks out of the options of a pool. */
export function splitHooks<C>(options: Omit<GenericPoolOptions<C>, 'driver'>): { hooks: Hooks<C>; rest: PoolOptions } {
  const rest: Record<string, unknown> = { ...options }
  const hooks: Record<string, unknown> = {}
  for (const name of hookNames) {
    const hook = options[name]
    delete rest[name]
    if (hook === undefined) continue
    hooks[name] = fn(name, hook)
  }
  return { hooks, rest }
}

/** Options with every default filled in. */
export type ResolvedOptions = Required<Omit<PoolOptions, 'limit' | 'broker' | 'log'>> & {
  log: ((event: PoolEvent) => void) | undefined
  limit: { readonly name: string; readonly connections: number } | undefined
  broker: string | undefined
}

/** What of them the pool's decisions depend on. */
export type CoreOptions = Pick<
  ResolvedOptions,
  | 'name'
  | 'min'
  | 'max'
  | 'maxIdle'
  | 'order'
  | 'maxWaiting'
  | 'maxLifetimeMs'
  | 'idleTimeoutMs'
  | 'maxUses'
  | 'pingAfterIdleMs'
  | 'timings'
> & {
  /** Every connection is looked at before it is lent. */
  readonly checkAlways?: boolean
}

let unnamed = 0
/** All pools of the process that limit themselves without a name share one limit. */
const unnamedLimit = 'default'

/** The names of all pool options, for those who have to tell them from others. */
export const poolOptionNames: ReadonlySet<string> = new Set<keyof PoolOptions>([
  'name',
  'min',
  'max',
  'maxIdle',
  'order',
  'acquireTimeoutMs',
  'maxWaiting',
  'connectTimeoutMs',
  'idleTimeoutMs',
  'maxLifetimeMs',
  'maxUses',
  'pingAfterIdleMs',
  'reset',
  'resetTimeoutMs',
  'closeTimeoutMs',
  'limit',
  'broker',
  'leakAfterMs',
  'timings',
  'log',
  'clock',
])

/** Checks pool options and fills in the defaults. Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'`. */
export function resolveOptions(options: PoolOptions): ResolvedOptions {
  onlyKnown(options, [...poolOptionNames])
  if (options.limit !== undefined && options.broker !== undefined) {
    throw optionTypeError('broker', 'Cannot use "limit" and "broker" together: "limit" makes or joins its own broker.')
  }
  if (options.acquireTimeoutMs === 0) {
    throw optionRangeError(
      'acquireTimeoutMs',
      'acquireTimeoutMs must be above 0: got 0. To wait for ever use Infinity; not to wait at all, tryAcquire().',
    )
  }
  const min = count('min', options.min, 0, { from: 0 })
  const max = count('max', options.max, 10, { from: 1 })
  if (min > max) throw optionRangeError('min', `min must not be above max: got min ${min}, max ${max}.`)
  const maxIdle = count('maxIdle', options.maxIdle, max, { from: 0 })
  if (maxIdle < min || maxIdle > max) {
    throw optionRangeError('maxIdle', `maxIdle must be from min (${min}) to max (${max}): got ${maxIdle}.`)
  }
  const keepsNone = loopStops()
  return {
    name: text('name', options.name) ?? `pool-${++unnamed}`,
    min: keepsNone ? 0 : min,
    max,
    maxIdle: keepsNone ? 0 : maxIdle,
    order: oneOf('order', options.order, ['lifo', 'fifo']),
    acquireTimeoutMs: duration('acquireTimeoutMs', options.acquireTimeoutMs, 30_000, { endless: true }),
    maxWaiting: count('maxWaiting', options.maxWaiting, Infinity, { from: 0, endless: true }),
    connectTimeoutMs: duration('connectTimeoutMs', options.connectTimeoutMs, 10_000, { from: 1 }),
    idleTimeoutMs: duration('idleTimeoutMs', options.idleTimeoutMs, 60_000, { from: 1, endless: true }),
    maxLifetimeMs: duration('maxLifetimeMs', options.maxLifetimeMs, 1_800_000, { from: 1, endless: true }),
    maxUses: count('maxUses', options.maxUses, Infinity, { from: 1, endless: true }),
    pingAfterIdleMs: duration('pingAfterIdleMs', options.pingAfterIdleMs, 1_000, { endless: true }),
    reset: oneOf('reset', options.reset, ['auto', 'full', 'none']),
    resetTimeoutMs: duration('resetTimeoutMs', options.resetTimeoutMs, 5_000, { from: 1 }),
    closeTimeoutMs: duration('closeTimeoutMs', options.closeTimeoutMs, 10_000, { endless: true }),
    limit: limit(options.limit),
    broker: text('broker', options.broker),
    leakAfterMs: duration('leakAfterMs', options.leakAfterMs, Infinity, { from: 1, endless: true }),
    timings: flag('timings', options.timings),
    log: options.log === undefined ? undefined : fn('log', options.log),
    clock: options.clock ?? systemClock,
  }
}

function limit(value: unknown): ResolvedOptions['limit'] {
  if (value === undefined) return undefined
  if (typeof value === 'number') return { name: unnamedLimit, connections: count('limit', value, 1, { from: 1 }) }
  if (typeof value !== 'object' || value === null || !('connections' in value)) {
    throw optionTypeError('limit', `limit must be a number or { name?, connections }: got ${shown(value)}.`)
  }
  for (const key of Object.keys(value)) {
    if (key !== 'name' && key !== 'connections') {
      throw optionTypeError('limit', `Unknown option "limit.${key}": allowed are name, connections.`)
    }
  }
  return {
    name: text('limit.name', 'name' in value ? value.name : undefined) ?? unnamedLimit,
    connections: count('limit.connections', value.connections, 1, { from: 1 }),
  }
}

/** Refuses options that are not known. `of` says whose they are; `prefix` stands before their names. */
export function onlyKnown(options: object, allowed: readonly string[], of = '', prefix = ''): void {
  for (const key of Object.keys(options)) {
    if (allowed.includes(key)) continue
    const name = `${prefix}${key}`
    const whose = of && ` of ${of}`
    const are = allowed.length === 1 ? 'is' : 'are'
    throw optionTypeError(name, `Unknown option "${name}"${whose}: allowed ${are} ${allowed.join(', ')}.`)
  }
}

interface Range {
  from?: number
  endless?: boolean
}

function count(option: string, value: unknown, fallback: number, range: Range): number {
  if (value === undefined) return fallback
  return number(option, value, range, 'a whole number', 2 ** 20, Number.isInteger)
}

/** Checks a whole number. */
export function whole(option: string, value: unknown, { from, to }: { from: number; to: number }): number {
  return number(option, value, { from }, 'a whole number', to, Number.isInteger)
}

/** Checks a time in milliseconds. */
export function duration(option: string, value: unknown, fallback: number, range: Range = {}): number {
  if (value === undefined) return fallback
  return number(option, value, range, 'a number of milliseconds', longestTimerMs, Number.isFinite)
}

function number(
  option: string,
  value: unknown,
  { from = 0, endless = false }: Range,
  kind: string,
  to: number,
  fits: (value: number) => boolean,
): number {
  const allowed = `${kind} from ${from} to ${to}${endless ? ', or Infinity' : ''}`
  if (typeof value !== 'number') throw optionTypeError(option, `${option} must be ${allowed}: got ${shown(value)}.`)
  if (endless && value === Infinity) return value
  if (!fits(value) || value < from || value > to) {
    throw optionRangeError(option, `${option} must be ${allowed}: got ${value}.`)
  }
  return value
}

function text(option: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'string' || value === '') {
    throw optionTypeError(option, `${option} must be a string that is not empty: got ${shown(value)}.`)
  }
  return value
}

function oneOf<const T extends string>(option: string, value: unknown, allowed: readonly [T, ...T[]]): T {
  if (value === undefined) return allowed[0]
  const found = allowed.find((one) => one === value)
  if (found === undefined) {
    throw optionTypeError(option, `${option} must be one of '${allowed.join("', '")}': got ${shown(value)}.`)
  }
  return found
}

/** Checks an option that is true or false; without it, false. */
export function flag(option: string, value: unknown): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false
  throw optionTypeError(option, `${option} must be true or false: got ${shown(value)}.`)
}

/** Checks a function. */
export function fn<F>(option: string, value: F): F {
  if (typeof value === 'function') return value
  throw optionTypeError(option, `${option} must be a function: got ${shown(value)}.`)
}

/** A value, for a message. An object is shown by its kind alone: it might hold a password. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object'
  return typeof value === 'function' ? 'a function' : String(value)
}
