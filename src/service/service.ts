import { randomUUID } from 'node:crypto'
import { isMainThread, threadId } from 'node:worker_threads'
import { PoolError, TaskError } from '../errors.ts'
import { createPool } from '../postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions } from '../postgres/index.ts'
import type { Run, RunOptions } from './modules.ts'
import { checkOptions } from './options.ts'
import type { ServiceOptions } from './options.ts'
import { ServerThread } from './servers.ts'
import { onSignals } from '../signals.ts'
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

/** Task workers, servers and the main thread under one limit. Made by `createService`. */
export class Service<M> implements AsyncDisposable {
  /** The main thread's own pool. */
  readonly pool: PostgresPool
  readonly #options: ServiceOptions<M>
  readonly #shared: ThreadData
  #tasks: TaskWorkers | undefined
  #servers: ServerThread[] = []
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
   * Connects once, runs `before`, then starts task workers and servers. Resolves when all servers are ready. Rejects
   * with the first failure, whatever had been started being closed again.
   */
  start(): Promise<void> {
    this.#started ??= this.#start()
    return this.#started
  }

  /**
   * Runs a task on one of the task workers. Rejects with what the task threw, with `TaskError` (no such task, or
   * something that cannot cross threads), `WorkerLostError`, or `signal.reason`.
   */
  readonly run: Run<M> = ((name: string, input?: unknown, options?: RunOptions) =>
    this.#workers(name).then((tasks) => tasks.run(name, input, options))) as Run<M>

  /** Where the threads of a server said they listen, in the order of their index. */
  addresses(server: string): readonly unknown[] {
    return this.#servers.filter((thread) => thread.name === server).map((thread) => thread.address)
  }

  /**
   * Servers stop accepting and finish, then tasks finish, then all pools close; what takes longer than
   * `closeTimeoutMs` is cut off. Idempotent; resolves when no thread, socket or timer is left.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** Same as `close()`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #start(): Promise<void> {
    const { before, tasks, servers = {}, signals = ['SIGTERM', 'SIGINT'] } = this.#options
    this.#forgetSignals = onSignals(signals || [], () => this.close())
    try {
      await this.pool.open()
      // A wrong password or a server that is down is better known now than with the first request.
      await (await this.pool.acquire()).release()
      await before?.({ pool: this.pool })
      if (tasks) await this.#startTasks(tasks)
      for (const [name, server] of Object.entries(servers)) {
        for (let index = 0; index < (server.workers ?? 1); index++) {
          const data = { ...this.#shared, module: server.module.href, name, index, data: server.data }
          const run = async (task: string, input: unknown, abort: Int32Array | undefined): Promise<unknown> =>
            (await this.#workers(task)).runFor(task, input, abort)
          this.#servers.push(new ServerThread({ name, index, data, run }))
        }
      }
      await Promise.all(this.#servers.map((thread) => thread.start()))
      for (const thread of this.#servers) thread.supervise()
    } catch (error) {
      await this.close()
      throw error
    }
  }

  async #startTasks({ module, workers = 2, concurrency = 1 }: NonNullable<ServiceOptions<M>['tasks']>): Promise<void> {
    // A thread that computes gives nothing back meanwhile: it keeps one idle connection at the most.
    const pool: PostgresPoolOptions = { max: concurrency, maxIdle: 1, ...this.#shared.pool, min: 0 }
    const max = Math.max(1, pool.max ?? concurrency)
    this.#tasks = new TaskWorkers({
      workers,
      concurrency,
      data: { ...this.#shared, module: module.href, pool: { ...pool, max, maxIdle: Math.min(max, pool.maxIdle ?? 1) } },
    })
    await this.#tasks.load()
  }

  async #workers(task: string): Promise<TaskWorkers> {
    if (!this.#started) throw new TaskError(task, `Cannot run "${task}": the service has not been started.`)
    if (!this.#options.tasks) throw new TaskError(task, `Cannot run "${task}": the service has no module of tasks.`)
    if (!this.#tasks) await this.#started
    if (!this.#tasks) throw new TaskError(task, `Cannot run "${task}": the service is not running.`)
    return this.#tasks
  }

  async #close(): Promise<void> {
    const { closeTimeoutMs = 10_000 } = this.#options
    await Promise.all(this.#servers.map((thread) => thread.stop(closeTimeoutMs)))
    await this.#tasks?.close(closeTimeoutMs)
    await this.pool.close()
    this.#forgetSignals()
  }
}
