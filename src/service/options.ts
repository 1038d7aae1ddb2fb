import { constants } from 'node:os'
import { duration } from '../options.ts'
import type { LimitOption } from '../options.ts'
import { optionRangeError, optionTypeError } from '../errors.ts'
import type { PostgresPool, PostgresPoolOptions } from '../postgres/index.ts'
import type { ServerModule, TaskModule } from './modules.ts'

/** What a service is made of. */
export interface ServiceOptions<M> {
  /** The database, as a URL. */
  url: string | URL | undefined
  /** Connections that all threads of the service have together, at the most. */
  limit: LimitOption
  /**
   * Options of every thread's pool. They cross threads, so no functions. A task worker's pool keeps no `min`, and unless
   * said otherwise has `max` as its `concurrency` and `maxIdle` 1: while it computes it gives nothing back.
   */
  pool?: Omit<PostgresPoolOptions, 'limit' | 'broker'>
  /** CPU work, off the event loop. */
  tasks?: TasksOptions<M>
  /** Long-running servers, each on threads of its own, by name. */
  servers?: Readonly<Record<string, ServerOptions>>
  /** Runs in the main thread, under the limit, before any task or server does. */
  before?: (context: { pool: PostgresPool }) => unknown
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
}

const serviceKeys = ['url', 'limit', 'pool', 'tasks', 'servers', 'before', 'checkLimit', 'signals', 'closeTimeoutMs']

/** Checks what the compiler cannot. */
export function checkOptions<M>(options: ServiceOptions<M>): void {
  known('', options, serviceKeys)
  if (options.limit === undefined) {
    throw optionTypeError('limit', 'limit must be the number of connections that all threads may have together.')
  }
  known('pool.', options.pool ?? {}, undefined)
  if (options.tasks) {
    known('tasks.', options.tasks, ['module', 'workers', 'concurrency'])
    module('tasks.module', options.tasks.module, 'taskModule')
    count('tasks.workers', options.tasks.workers)
    count('tasks.concurrency', options.tasks.concurrency)
  }
  for (const [name, server] of Object.entries(options.servers ?? {})) {
    known(`servers.${name}.`, server, ['module', 'workers', 'data'])
    module(`servers.${name}.module`, server.module, 'serverModule')
    count(`servers.${name}.workers`, server.workers)
  }
  duration('closeTimeoutMs', options.closeTimeoutMs, 0, { endless: true })
  const { before, checkLimit, signals } = options
  if (before !== undefined && typeof before !== 'function')
    throw optionTypeError('before', 'before must be a function.')
  if (checkLimit !== undefined && typeof checkLimit !== 'boolean')
    throw optionTypeError('checkLimit', 'checkLimit must be true or false.')
  if (signals !== undefined && signals !== false && !(Array.isArray(signals) && signals.every(isSignal))) {
    throw optionTypeError('signals', `signals must be false or an array of signals, such as 'SIGTERM'.`)
  }
  crosses('pool', options.pool)
  for (const [name, server] of Object.entries(options.servers ?? {})) crosses(`servers.${name}.data`, server.data)
}

function isSignal(value: unknown): boolean {
  return typeof value === 'string' && value in constants.signals
}

function known(prefix: string, options: object, allowed: readonly string[] | undefined): void {
  for (const key of Object.keys(options)) {
    const refused = allowed ? !allowed.includes(key) : key === 'limit' || key === 'broker'
    if (refused) {
      const hint = allowed ? `allowed are ${allowed.join(', ')}` : 'the service has its own "limit"'
      throw optionTypeError(`${prefix}${key}`, `Unknown option "${prefix}${key}": ${hint}.`)
    }
  }
}

function module(option: string, value: { href?: unknown } | undefined, maker: string): void {
  if (typeof value?.href === 'string') return
  throw optionTypeError(option, `${option} must be ${maker}(new URL('./module.js', import.meta.url)).`)
}

function count(option: string, value: unknown): void {
  if (value === undefined) return
  const allowed = `${option} must be a whole number from 1 to 1024`
  if (typeof value !== 'number') throw optionTypeError(option, `${allowed}: got a ${typeof value}.`)
  if (!Number.isInteger(value) || value < 1 || value > 1024) {
    throw optionRangeError(option, `${allowed}: got ${value}.`)
  }
}

function crosses(option: string, value: unknown): void {
  try {
    structuredClone(value)
  } catch {
    const culprit = Object.entries(value ?? {}).find(([, one]) => typeof one === 'function')?.[0]
    const name = culprit === undefined ? option : `${option}.${culprit}`
    throw optionTypeError(
      name,
      `${name} cannot cross threads: functions and the like stay in the thread they are made in.`,
    )
  }
}
