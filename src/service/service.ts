import { randomUUID } from 'node:crypto'
import { isMainThread, threadId } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import { LimitError, PoolError, TaskError, messageOf } from '../errors.ts'
import { checkLimitThrough } from '../postgres/check-limit.ts'
import { createPool } from '../postgres/index.ts'
import type { PostgresLease, PostgresPool, PostgresPoolOptions } from '../postgres/index.ts'
import { onSignals } from '../signals.ts'
import type { Run, RunOptions } from './modules.ts'
import { checkOptions } from './options.ts'
import type { ServiceOptions } from './options.ts'
import { ServerThread } from './servers.ts'
import { TaskWorkers } from './tasks.ts'
import type { ThreadData } from './thread.ts'

/**
 * Makes a service: task workers, servers and the main thread, each with a pool of its own, all of them under one
 * limit. Nothing happens before `start()`. Throws `ERR_OPTION` for a wrong option, `ERR_NOT_MAIN_THREAD` in a worker.
 *
 * @example
 * ```ts
 * import { createService, taskModule } from 'millpond/service'
 *
 * const service = createService({
 *   url: process.env.DATABASE_URL,
 *   limit: 20,
 *   tasks: { module: taskModule<{ double: (n: number) => number }>(new URL('./tasks.js', import.meta.url)), workers: 4 },
 * })
 * await service.start()
 * const four = await service.run('double', 2)
 * await service.close()
 * ```
 */
export function createService<M = unknown>(options: ServiceOptions<M>): Service<M> {
  if (!isMainThread) {
    throw new PoolError(
      'ERR_NOT_MAIN_THREAD',
      'Cannot create a service in a worker: this module was imported by one. Keep createService() out of modules that tasks or servers import.',
    )
  }
  checkOptions(options)
  return new Service<M>(options)
}

/**
 * Task workers, servers and the main thread under one limit. Made by `createService`.
 *
 * State: new → starting → running → closing → closed, and from new or starting to closing. What `start()` was about to
 * do when `close()` came is not done any more.
 */
export class Service<M> implements AsyncDisposable {
  /** The main thread's own pool. */
  readonly pool: PostgresPool
  readonly #options: ServiceOptions<M>
  readonly #shared: ThreadData
  #phase: 'new' | 'starting' | 'running' | 'closing' | 'closed' = 'new'
  #tasks: TaskWorkers | undefined
  #servers: ServerThread[] = []
  /** The start itself, and the start with what is done if it fails. */
  #starting: Promise<void> | undefined
  #started: Promise<void> | undefined
  #closed: Promise<void> | undefined
  #forgetSignals: () => void = () => {}

  /** @internal */
  constructor(options: ServiceOptions<M>) {
    this.#options = options
    const pool: PostgresPoolOptions = { ...options.pool, limit: options.limit }
    this.pool = createPool(options.url, pool)
    this.#shared = { service: randomUUID(), home: threadId, url: String(options.url), pool }
  }

  /**
   * Connects once, checks the limit, runs `before`, then starts task workers and servers. Resolves when all servers are
   * ready. Rejects with the first failure (`LimitError` for a limit that the server can never give), whatever had been
   * started being closed again. A second call returns the first one's promise.
   */
  start(): Promise<void> {
    this.#started ??= this.#startOrClose()
    return this.#started
  }

  /**
   * Runs a task on one of the task workers. Rejects with what the task threw, with `TaskError` (no such task, or
   * something that cannot cross threads), `WorkerLostError`, or `signal.reason`.
   */
  readonly run: Run<M> = (async (name: string, input?: unknown, options?: RunOptions) =>
    this.#workers(name).run(name, input, options)) as Run<M>

  /** Where the threads of a server said they listen, in the order of their index. */
  addresses(server: string): readonly unknown[] {
    return this.#servers.filter((thread) => thread.name === server).map((thread) => thread.address)
  }

  /**
   * Servers stop accepting and finish, then tasks finish, then all pools close. What is not done `closeTimeoutMs` after
   * the call is cut off. Idempotent; resolves when no thread, socket or timer is left.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** Same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #startOrClose(): Promise<void> {
    try {
      this.#goOn('new')
      this.#phase = 'starting'
      this.#starting = this.#start()
      await this.#starting
      this.#phase = 'running'
    } catch (error) {
      const interrupted = this.#closed !== undefined
      await this.close()
      throw interrupted ? closedError(error) : error
    }
  }

  async #start(): Promise<void> {
    const { before, tasks, servers = {}, signals = ['SIGTERM', 'SIGINT'] } = this.#options
    this.#forgetSignals = onSignals(signals || [], () => this.close())
    await this.pool.open()
    // A wrong password or a server that is down is better known now than with the first request.
    await this.#checkLimit(await this.pool.acquire())
    this.#goOn()
    await before?.({ pool: this.pool })
    this.#goOn()
    if (tasks) {
      this.#tasks = this.#startTasks(tasks)
      await this.#tasks.load()
      this.#goOn()
    }
    for (const [name, server] of Object.entries(servers)) {
      for (let index = 0; index < (server.workers ?? 1); index++) {
        const data = { ...this.#shared, module: server.module.href, name, index, data: server.data }
        const run = async (task: string, input: unknown, abort: Int32Array | undefined): Promise<unknown> =>
          this.#workers(task).runFor(task, input, abort)
        this.#servers.push(new ServerThread({ name, index, data, run }))
      }
    }
    await Promise.all(this.#servers.map((thread) => thread.start()))
    this.#goOn()
  }

  /** Takes the lease, and asks through it: a connection of its own would be one more than the limit allows. */
  async #checkLimit(lease: PostgresLease): Promise<void> {
    const { broker } = this.pool.stats()
    try {
      if (this.#options.checkLimit !== false && broker) await checkLimitThrough(lease, broker)
      await lease.release()
    } catch (error) {
      await lease.destroy('its limit could not be checked')
      if (error instanceof LimitError) throw error
      if (this.#closed) return
      process.emitWarning(`Cannot check whether the limit fits, going on: ${messageOf(error)}`, 'MillpondWarning')
    }
  }

  /** Throws if the service was closed meanwhile. */
  #goOn(expected: 'new' | 'starting' = 'starting'): void {
    if (this.#phase !== expected) throw closedError()
  }

  #startTasks({ module, workers = 2, concurrency = 1 }: NonNullable<ServiceOptions<M>['tasks']>): TaskWorkers {
    // A thread that computes gives nothing back meanwhile: it keeps one idle connection at the most, and none for good.
    const { max = concurrency, maxIdle = Math.min(1, max), ...others } = this.#shared.pool
    const pool: PostgresPoolOptions = { ...others, min: 0, max, maxIdle }
    return new TaskWorkers({ workers, concurrency, data: { ...this.#shared, module: module.href, pool } })
  }

  #workers(task: string): TaskWorkers {
    const tasks = this.#phase === 'starting' || this.#phase === 'running' ? this.#tasks : undefined
    if (tasks) return tasks
    const why = !this.#options.tasks
      ? 'the service has no module of tasks'
      : this.#phase === 'new' || this.#phase === 'starting'
        ? 'its task workers have not been started'
        : 'the service is closed'
    throw new TaskError(task, `Cannot run "${task}": ${why}.`)
  }

  async #close(): Promise<void> {
    const { closeTimeoutMs = 10_000 } = this.#options
    this.#phase = 'closing'
    const startedAt = performance.now()
    const deadline = deferred<void>()
    const timer = closeTimeoutMs === Infinity ? undefined : setTimeout(deadline.resolve, closeTimeoutMs)
    await Promise.all(this.#servers.map((thread) => thread.stop(deadline.promise)))
    // What it is about is given up at its next step; `before` may take its time.
    await Promise.race([Promise.allSettled([this.#starting]), deadline.promise])
    await this.#tasks?.close(deadline.promise)
    clearTimeout(timer)
    await this.pool.close({ timeoutMs: Math.max(0, closeTimeoutMs - (performance.now() - startedAt)) })
    this.#forgetSignals()
    this.#phase = 'closed'
  }
}

function closedError(cause?: unknown): PoolError {
  return new PoolError('ERR_SERVICE_CLOSED', 'Cannot start the service: it was closed.', { cause })
}
