import { constants } from 'node:os'
import { duration, flag, fn, onlyKnown, resolveOptions, shown, whole } from '../options.ts'
import type { LimitOption } from '../options.ts'
import { optionRangeError, optionTypeError } from '../errors.ts'
import type { PostgresHooks, PostgresPool, PostgresPoolOptions } from '../postgres/index.ts'
import { parseOptions } from '../postgres/options.ts'
import { canCross, findCulprit } from './clone.ts'
import { isModule } from './define-pool.ts'
import type { DefinedTypes } from './define-pool.ts'
import type { PoolModule, ServerModule, TaskModule } from './modules.ts'
import { shownUrl } from './shown-url.ts'

/** What a service is made of. */
export interface ServiceOptions<M, D = {}> {
  /**
   * The database; or the file of a module that defines the pools, for options that hold functions: see `definePool`, and
   * `poolModule` for its types.
   */
  url: string | URL | PoolModule<D> | undefined
  /** Connections that all threads of the service have together, at the most. */
  limit: LimitOption
  /**
   * Options of every thread's pool. They cross threads, so no functions: those are for `definePool`. A task worker's pool
   * keeps no `min`, and unless said otherwise has `max` as its `concurrency` and `maxIdle` 1: while it computes it gives
   * nothing back.
   */
  pool?: PlainPoolOptions
  /** CPU work, off the event loop. */
  tasks?: TasksOptions<M>
  /** Long-running servers, each on threads of its own, by name. */
  servers?: Readonly<Record<string, ServerOptions>>
  /** Runs in the main thread, under the limit, before any task or server does. */
  before?: (context: { pool: PostgresPool<DefinedTypes<D>> }) => unknown
  /**
   * Whether `start()` asks the server if the limit can be had, before `before` and any thread: one query on the first
   * connection. A limit that can never be had is a `LimitError`; a tight one, or no answer, a warning.
   * @default true
   */
  checkLimit?: boolean
  /**
   * Signals that close the service and end the process; a second one ends it at once. `false`: none.
   * @default ['SIGTERM', 'SIGINT']
   */
  signals?: readonly NodeJS.Signals[] | false
  /**
   * How long `close()` lets servers, tasks and leases finish, all together, in ms. `Infinity` waits for ever.
   * @default 10_000
   */
  closeTimeoutMs?: number
  /**
   * A module that every thread loads before anything else of the service, the main thread with `start()`: for what is to
   * watch it. There, `node --import` is earlier still; loaded twice it is evaluated once.
   */
  instrument?: URL
}

/** Options of a pool that can cross threads. */
export type PlainPoolOptions = Omit<
  PostgresPoolOptions,
  | 'limit'
  | 'broker'
  | 'clock'
  | 'log'
  | 'types'
  | 'transform'
  | 'debug'
  | 'onnotice'
  | 'onparameter'
  | 'password'
  | keyof PostgresHooks
> & { password?: string }

/** Options of a service with several modules of tasks, by name: `run('images.resize', …)`. */
export interface GroupedServiceOptions<G, D = {}> extends Omit<ServiceOptions<unknown, D>, 'tasks'> {
  tasks: { readonly [N in keyof G]: TasksOptions<G[N]> }
}

export interface TasksOptions<M> {
  /** As `taskModule(…)` gives it. */
  module: TaskModule<M>
  /**
   * Threads. 1 … 1024
   * @default 2
   */
  workers?: number
  /**
   * Tasks that a thread runs at the same time. 1 for work that computes; more for tasks that wait.
   * @default 1
   */
  concurrency?: number
  /**
   * Calls that may wait for a worker; one more is refused with a `TaskQueueFullError`.
   * @default Infinity
   */
  maxQueue?: number
  /**
   * How long a task may go on after its caller has given up, in ms; then its thread is ended, with all that it runs.
   * @default 5_000, or Infinity with a `concurrency` above 1
   */
  killAfterMs?: number
  /**
   * How long a thread may take to load the module, in ms. One that has not by then is ended.
   * @default 30_000
   */
  startTimeoutMs?: number
}

export interface ServerOptions {
  /** As `serverModule(…)` gives it. */
  module: ServerModule
  /**
   * Threads. 1 … 1024
   * @default 1
   */
  workers?: number
  /** Anything that can cross threads; the server's context carries it. */
  data?: unknown
  /**
   * How long its `start` may take, in ms. A thread that is not ready by then is ended.
   * @default 30_000
   */
  startTimeoutMs?: number
  /**
   * How often within a minute a thread is started again after it has ended. After that it is given up: `Service.ready()` is
   * false until `Service.reload()` brings it back. 0: never started again; `Infinity`: always.
   * @default 10
   */
  maxRestarts?: number
}

const serviceKeys = [
  'url',
  'limit',
  'pool',
  'tasks',
  'servers',
  'before',
  'checkLimit',
  'signals',
  'closeTimeoutMs',
  'instrument',
]

const serverKeys = ['module', 'workers', 'data', 'startTimeoutMs', 'maxRestarts']

/** Checks what the compiler cannot. */
export function checkOptions<M, D>(options: ServiceOptions<M, D>): void {
  anObject('options', options, 'of the service, as in createService({ url, limit: 20 })')
  onlyKnown(options, serviceKeys)
  const { limit, pool, tasks, servers, before, checkLimit, signals, instrument } = options
  if (limit === undefined) {
    throw optionTypeError(
      'limit',
      'limit must be the number of connections that all threads may have together: got none.',
    )
  }
  if (pool !== undefined) checkPool(pool)
  if (tasks !== undefined) checkTasks(tasks)
  if (servers !== undefined) checkServers(servers)
  duration('closeTimeoutMs', options.closeTimeoutMs, 0, { endless: true })
  if (before !== undefined) fn('before', before)
  flag('checkLimit', checkLimit)
  if (signals !== undefined && signals !== false) checkSignals(signals)
  if (instrument !== undefined && !(instrument instanceof URL && instrument.protocol === 'file:')) {
    throw optionTypeError(
      'instrument',
      `instrument must be new URL('./module.js', import.meta.url): got ${shownUrl(instrument)}.`,
    )
  }
  // Without one, the pool is made at once, and looks at its options by itself.
  if (isModule(options.url)) checkBeforeDefinition(options)
}

function anObject(option: string, value: unknown, what: string): asserts value is object {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return
  throw optionTypeError(option, `${option} must be an object ${what}: got ${shownUrl(value)}.`)
}

function checkPool(pool: unknown): void {
  anObject('pool', pool, 'with options of the pools, as in { max: 5 }')
  for (const key of ['limit', 'broker']) {
    if (!Object.hasOwn(pool, key)) continue
    throw optionTypeError(`pool.${key}`, `Unknown option "pool.${key}": the service has its own "limit".`)
  }
  crosses('pool', pool)
}

/** What the definition says is known in `start()` only. */
function checkBeforeDefinition({ limit, pool = {} }: Pick<ServiceOptions<unknown>, 'limit' | 'pool'>): void {
  resolveOptions({ name: 'pool', limit })
  parseOptions('postgres://user@host/database', pool, {})
}

function checkServers(servers: unknown): void {
  anObject('servers', servers, 'of servers by their names, as in { http: { module } }')
  for (const [name, server] of Object.entries(servers) as [string, ServerOptions][]) {
    const prefix = `servers.${name}`
    anObject(prefix, server, 'with a module, as in { module }')
    onlyKnown(server, serverKeys, '', `${prefix}.`)
    module(`${prefix}.module`, server.module, 'serverModule')
    count(`${prefix}.workers`, server.workers)
    duration(`${prefix}.startTimeoutMs`, server.startTimeoutMs, 0, { from: 1, endless: true })
    countOrNoEnd(`${prefix}.maxRestarts`, server.maxRestarts)
    crosses(`${prefix}.data`, server.data)
  }
}

const taskKeys = ['module', 'workers', 'concurrency', 'maxQueue', 'killAfterMs', 'startTimeoutMs']

/** One module of tasks, or several by name. */
function checkTasks(tasks: unknown): void {
  anObject('tasks', tasks, 'with a module, as in { module }, or of several such objects by their names')
  if ('module' in tasks) return checkGroup('tasks', tasks as TasksOptions<unknown>)
  const groups = Object.entries(tasks)
  if (groups.length === 0) {
    throw optionTypeError('tasks', 'tasks must have a module, as in { module }, or several by their names: got none.')
  }
  for (const [name, group] of groups) {
    if (!/^[\w-]+$/.test(name)) {
      throw optionTypeError(`tasks.${name}`, `tasks.${name}: a name may have letters, digits, "_" and "-" only.`)
    }
    anObject(`tasks.${name}`, group, 'with a module, as in { module }')
    checkGroup(`tasks.${name}`, group as TasksOptions<unknown>)
  }
}

function checkGroup(prefix: string, tasks: TasksOptions<unknown>): void {
  onlyKnown(tasks, taskKeys, '', `${prefix}.`)
  module(`${prefix}.module`, tasks.module, 'taskModule')
  count(`${prefix}.workers`, tasks.workers)
  count(`${prefix}.concurrency`, tasks.concurrency)
  countOrNoEnd(`${prefix}.maxQueue`, tasks.maxQueue)
  duration(`${prefix}.killAfterMs`, tasks.killAfterMs, 0, { endless: true })
  duration(`${prefix}.startTimeoutMs`, tasks.startTimeoutMs, 0, { from: 1, endless: true })
}

function checkSignals(signals: unknown): void {
  const allowed = `signals must be false or an array of signals, such as ['SIGTERM', 'SIGINT']`
  if (!Array.isArray(signals)) throw optionTypeError('signals', `${allowed}: got ${shown(signals)}.`)
  const wrong = (signals as unknown[]).findIndex((signal) => !isSignal(signal))
  if (wrong >= 0) throw optionTypeError('signals', `${allowed}: got ${shown(signals[wrong])} in it.`)
}

function isSignal(value: unknown): boolean {
  return typeof value === 'string' && value in constants.signals
}

function module(option: string, value: unknown, maker: string): void {
  if (value instanceof URL || typeof (value as { href?: unknown } | null | undefined)?.href !== 'string') {
    const needed = `${option} must be ${maker}(new URL('./module.js', import.meta.url))`
    throw optionTypeError(option, `${needed}: got ${shownUrl(value)}.`)
  }
}

function count(option: string, value: unknown): void {
  if (value !== undefined) whole(option, value, { from: 1, to: 1024 })
}

function countOrNoEnd(option: string, value: unknown): void {
  if (value === undefined || value === Infinity) return
  const allowed = `${option} must be a whole number from 0, or Infinity`
  if (typeof value !== 'number') throw optionTypeError(option, `${allowed}: got ${shown(value)}.`)
  if (!Number.isInteger(value) || value < 0) throw optionRangeError(option, `${allowed}: got ${value}.`)
}

const inModule =
  "Put it into a module that each thread loads: url: new URL('./db.js', import.meta.url) with `export default definePool({ … })`."

function crosses(option: string, value: unknown): void {
  if (canCross(value)) return
  const name = option + findCulprit(value).path
  const instead = option === 'pool' ? ` ${inModule}` : ''
  throw optionTypeError(
    name,
    `${name} cannot cross threads: functions and the like stay in the thread they are made in.${instead}`,
  )
}
