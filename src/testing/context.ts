import { setMaxListeners } from 'node:events'
import { TaskError, PoolError, optionTypeError } from '../errors.ts'
import { onlyKnown } from '../options.ts'
import type { PostgresPool, Types } from '../postgres/index.ts'
import { callTask, either } from '../service/call.ts'
import { canCross, culpritIn } from '../service/clone.ts'
import { pack, unpack } from '../service/parcel.ts'
import type { DefinedTypes, PoolDefinition } from '../service/define-pool.ts'
import { dispose } from '../service/dispose.ts'
import { roundTrip } from '../service/health-check.ts'
import { Listeners } from '../service/listen.ts'
import type { Run, RunOptions, TaskContext } from '../service/modules.ts'
import type { ServerContext } from '../service/server-context.ts'
import { transfer } from '../service/transfer.ts'
import { TasksHere } from './tasks-here.ts'

/** What a test lets a task or a server have. */
export interface TestContextOptions<M, P> {
  /** The context's `pool`. It stays open. Without one, whatever uses it throws: for tasks that need none. */
  pool?: P
  /**
   * What `run` runs, in this thread: a module of tasks, `await import('./tasks.js')`, or functions by their names, as in
   * `{ 'images.resize': resize }`.
   */
  tasks?: M
  /** What the service's options would say for this server. It is copied, as it would be on its way to a thread. */
  data?: unknown
  /** Which thread of the server it is. @default 0 */
  index?: number
  /** Aborts the context, as `abort()` does: the test's own signal, for example. */
  signal?: AbortSignal
  /** Hears what is told with `progress`, at once: for a test that aborts in the middle of a loop that never awaits. */
  onProgress?: (value: unknown) => void
}

/** The context of a task and of a server, for calling either in a test. Disposing of it ends what was started with it. */
export interface TestContext<M = unknown, D = {}> extends TaskContext<M, D>, ServerContext<M, D>, AsyncDisposable {
  /** Calls a task of `tasks` in this thread. The second type is for those who are called with it and run none. */
  readonly run: Run<M> & Run<unknown>
  /** What was told with `progress`, as a caller would have got it. */
  readonly progressed: readonly unknown[]
  /** Where it listens, or has announced that it does. */
  readonly addresses: readonly unknown[]
  /** Of the first address. Throws if there is none. */
  readonly port: number
  /**
   * Calls a server's `start` with this context. What it returns is disposed of with the context, after its listeners
   * have answered what they had accepted.
   */
  readonly start: <R>(start: (context: TestContext<M, D>) => R | PromiseLike<R>) => Promise<R>
  /** The caller gives up; the service stops the server. Gives up what `run` runs, too. */
  readonly abort: (reason?: unknown) => void
}

/** Until then, what was accepted may be answered. */
const drainTimeoutMs = 5_000
const optionNames = ['pool', 'tasks', 'data', 'index', 'signal', 'onProgress']

/**
 * Makes what a task or a server is called with, for a test without threads.
 *
 * * `listen` listens on 127.0.0.1, on any port that is free.
 * * `run` calls the functions of `tasks` in this thread. Inputs, results, progress and errors are copied as they are
 *   between threads; there are no workers to wait for.
 * * `progress` throws for what cannot cross threads, and drops nothing.
 *
 * @example
 * ```ts
 * import { testContext } from 'millpond/testing'
 * import type { TaskContext } from 'millpond/service'
 *
 * const double = (n: number, { progress }: TaskContext): number => {
 *   progress('half')
 *   return 2 * n
 * }
 *
 * await using context = testContext()
 * console.log(double(2, context), context.progressed) // 4 ['half']
 * ```
 */
export function testContext<M = unknown, T extends Types = {}>(
  options?: TestContextOptions<M, PostgresPool<T>>,
): TestContext<M, PoolDefinition<T>>
export function testContext<M, D = {}>(
  options: TestContextOptions<Partial<M>, PostgresPool<DefinedTypes<D>>>,
): TestContext<M, D>
export function testContext(options: TestContextOptions<object, PostgresPool> = {}): TestContext {
  onlyKnown(options, optionNames)
  return makeContext(options)
}

function makeContext(options: TestContextOptions<object, PostgresPool>): TestContext {
  const { pool = noPool, index = 0, onProgress } = options
  const data = copied('data', options.data)
  const givenUp = new AbortController()
  const stopping = new AbortController()
  const gone = options.signal ? AbortSignal.any([givenUp.signal, options.signal]) : givenUp.signal
  const signal = AbortSignal.any([gone, stopping.signal])
  setMaxListeners(0, gone, signal)
  const progressed: unknown[] = []
  const addresses: unknown[] = []
  const started: unknown[] = []
  const tasks = options.tasks && new TasksHere(options.tasks as Record<string, unknown>, pool)
  const listeners: Listeners = new Listeners((message) => {
    if (message.type === 'may listen') listeners.hear(message.key, { how: 'listen', port: 0, reusePort: false })
  })

  const context: TestContext = {
    pool,
    data,
    index,
    signal,
    progressed,
    addresses,
    transfer,
    get aborted() {
      return signal.aborted
    },
    get port() {
      return portOf(addresses)
    },
    throwIfAborted: () => signal.throwIfAborted(),
    progress: (value) => {
      const told = copied('progress', value)
      progressed.push(told)
      onProgress?.(told)
    },
    run: ((task: string, input?: unknown, own: RunOptions = {}) => {
      return callTask(tasks?.send ?? noTasks, task, input, { ...own, signal: either(own.signal, gone) })
    }) as unknown as Run<unknown>,
    listen: async (server, wanted) => {
      const address = await listeners.listen(server, { ...wanted, port: 0, host: '127.0.0.1', requireReusePort: false })
      addresses.push(address)
      return address
    },
    announce: (address) => void addresses.push(address),
    ready: () => !signal.aborted,
    check: (wanted) => roundTrip(pool, wanted),
    start: async (start) => {
      const server = await start(context)
      started.push(server)
      return server
    },
    abort: (reason) => givenUp.abort(reason),
    async [Symbol.asyncDispose]() {
      stopping.abort()
      await listeners.stop(drainTimeoutMs)
      const disposed = await Promise.allSettled(started.splice(0).map(dispose))
      for (const one of disposed) if (one.status === 'rejected') throw one.reason
    },
  }
  return context
}

/** A copy, as it arrives in another thread. */
function copied(name: 'data' | 'progress', value: unknown): unknown {
  if (!canCross(value)) {
    const why = `cannot cross threads: ${culpritIn(value)}`
    if (name === 'data') throw optionTypeError('data', `data ${why}.`)
    throw new TaskError('', `The task told something as its progress that ${why}.`)
  }
  // What a server is started with is copied by Node, which makes plain arrays of Buffers.
  return name === 'data' ? structuredClone(value) : unpack(structuredClone(pack(value)))
}

function portOf(addresses: readonly unknown[]): number {
  for (const address of addresses) {
    const port: unknown = (address as { port?: unknown } | null)?.port
    if (typeof port === 'number') return port
  }
  throw new PoolError('ERR_NOT_LISTENING', 'Nothing listens yet: await the server, or context.start(…), first.')
}

const noTasks = ({ task }: { task: string }): never => {
  throw new TaskError(task, `Cannot run "${task}": give the context its tasks, testContext({ tasks }).`)
}

/** Tasks take their context apart, the pool included: so it is an error only once it is used. */
const noPool = new Proxy({} as PostgresPool, {
  get(_, key) {
    // Whoever awaits it asks.
    if (key === 'then' || typeof key === 'symbol') return undefined
    throw optionTypeError('pool', `Cannot use "pool.${key}": give the context a pool, testContext({ pool }).`)
  },
})
