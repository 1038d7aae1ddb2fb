import { randomUUID } from 'node:crypto'
import { isMainThread, threadId } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import { LimitError, PoolError, messageOf } from '../errors.ts'
import { checkLimitThrough } from '../postgres/check-limit.ts'
import { createPool } from '../postgres/index.ts'
import type { PostgresLease, PostgresPool, PostgresPoolOptions } from '../postgres/index.ts'
import { onSignals } from '../signals.ts'
import type { PoolStats } from '../stats.ts'
import { callTask } from './call.ts'
import { isModule, openPool } from './define-pool.ts'
import type { DefinedTypes } from './define-pool.ts'
import { roundTrip } from './health-check.ts'
import type { CheckOptions, CheckResult } from './health-check.ts'
import type { Send } from './job.ts'
import type { Run, RunAll, RunAllOptions, RunOptions, TasksOf } from './modules.ts'
import { checkOptions } from './options.ts'
import type { GroupedServiceOptions, ServiceOptions } from './options.ts'
import { runAll, runAllOptions } from './run-all.ts'
import { warnIfNoRoom } from './server-room.ts'
import { createStatus, setStatus } from './server-status.ts'
import { Servers } from './servers.ts'
import { TaskGroups, cannotRun } from './task-groups.ts'
import type { ServerStats } from './servers.ts'
import type { TaskStats } from './tasks.ts'
import type { ThreadData } from './thread.ts'
import { WatchDesk } from './watch-desk.ts'
import type { EventListener, EventStats, ThreadStats } from './watch-desk.ts'
import { checkListening } from './watch-events.ts'
import type { ServiceEvent } from './watch-events.ts'

/** What connections of a pool that nobody uses get to close, or to be opened: the database may be silent. */
const unusedMs = 1_000

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
export function createService<M = unknown, D = {}>(options: ServiceOptions<M, D>): Service<M, D>
export function createService<G, D = {}>(options: GroupedServiceOptions<G, D>): Service<TasksOf<G>, D>
export function createService(options: ServiceOptions<unknown> | GroupedServiceOptions<unknown>): unknown {
  if (!isMainThread) {
    throw new PoolError(
      'ERR_NOT_MAIN_THREAD',
      'Cannot create a service in a worker: this module was imported by one. Keep createService() out of modules that tasks or servers import.',
    )
  }
  checkOptions(options as ServiceOptions<unknown>)
  const service = new Service<unknown>(options as ServiceOptions<unknown>)
  warnIfNoRoom(options as ServiceOptions<unknown>)
  return service
}

/** A snapshot of a service. */
export interface ServiceStats {
  /** The main thread's pool; with its `broker`, what all threads have. Undefined before a pool of a module is made. */
  readonly pool: PoolStats | undefined
  /** Task workers by the name of their module; `tasks` where there is only one. */
  readonly tasks: Readonly<Record<string, TaskStats>>
  readonly phase: ServicePhase
  readonly ready: boolean
  /** Servers by their names. */
  readonly servers: Readonly<Record<string, ServerStats>>
  /** The main thread, those of servers and those of tasks. */
  readonly threads: readonly ThreadStats[]
  /** What `on('event')` has heard. */
  readonly events: EventStats
}

export type ServicePhase = 'new' | 'starting' | 'running' | 'closing' | 'closed'

/**
 * Task workers, servers and the main thread under one limit. Made by `createService`.
 *
 * State: new → starting → running → closing → closed, and from new or starting to closing. What `start()` was about to
 * do when `close()` came is not done any more.
 */
export class Service<M, D = {}> implements AsyncDisposable {
  #pool: PostgresPool | undefined
  readonly #options: ServiceOptions<M, D>
  readonly #closeTimeoutMs: number
  readonly #shared: ThreadData
  #phase: ServicePhase = 'new'
  #tasks: TaskGroups | undefined
  readonly #status = createStatus()
  readonly #watch: WatchDesk
  #servers: Servers | undefined
  /** The start itself, and the start with what is done if it fails. */
  #starting: Promise<void> | undefined
  #started: Promise<void> | undefined
  #closed: Promise<void> | undefined
  #forgetSignals: () => void = () => {}

  /** @internal */
  constructor(options: ServiceOptions<M, D>) {
    this.#options = options
    this.#closeTimeoutMs = options.closeTimeoutMs ?? 10_000
    const pool: PostgresPoolOptions = { ...options.pool, limit: options.limit }
    if (!isModule(options.url)) this.#pool = createPool(options.url, pool)
    this.#shared = {
      service: randomUUID(),
      home: threadId,
      url: options.url === undefined ? undefined : String(options.url),
      pool,
      instrument: options.instrument?.href,
    }
    this.#watch = new WatchDesk(this.#shared.service, () => this.#pool)
  }

  /** The main thread's own pool. Where `url` is a module that defines it, there is none before `before` is called. */
  get pool(): PostgresPool<DefinedTypes<D>> {
    // Its types are those of the definition that it is made from.
    if (this.#pool) return this.#pool as unknown as PostgresPool<DefinedTypes<D>>
    throw new PoolError('ERR_POOL_CLOSED', 'Cannot use the pool of a service before start() has loaded its definition.')
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
   * Runs a task on one of the task workers. Rejects with what the task threw: its name, message, code, cause, stack and
   * own fields, and its class where that is JavaScript's or millpond's. Else with `TaskError` (no such task, or something
   * that cannot cross threads), `WorkerLostError`, `TaskTimeoutError`, `TaskQueueFullError`, or `signal.reason`.
   *
   * @example
   * ```ts
   * import { createService, taskModule } from 'millpond/service'
   *
   * const module = taskModule<{ resize: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array }>(new URL('./images.js', import.meta.url))
   * const service = createService({ url: process.env.DATABASE_URL, limit: 20, tasks: { images: { module } } })
   * await service.start()
   * const bytes = new Uint8Array(1_000_000)
   * const run = service.run('images.resize', bytes, { transfer: [bytes.buffer], timeoutMs: 5_000 })
   * for await (const percent of run.progress) console.log(percent)
   * const smaller = await run
   * ```
   */
  readonly run: Run<M> = ((name: string, input?: unknown, options?: RunOptions) => {
    const send: Send = (request, tell) => this.#groups(name).send(request, tell)
    return callTask(send, name, input, options)
  }) as Run<M>

  /**
   * Runs a task for each input, and yields the results. Takes no more than `concurrency` inputs ahead of who takes the
   * results; leaving the loop gives up what runs. Throws the first error, in the order of the results.
   *
   * @example
   * ```ts
   * import { createService, taskModule } from 'millpond/service'
   *
   * const module = taskModule<{ double: (n: number) => number }>(new URL('./tasks.js', import.meta.url))
   * const service = createService({ url: process.env.DATABASE_URL, limit: 20, tasks: { module } })
   * await service.start()
   * for await (const four of service.runAll('double', [1, 2, 3], { concurrency: 2 })) console.log(four)
   * ```
   */
  readonly runAll: RunAll<M> = ((name: string, inputs: Iterable<unknown>, options: RunAllOptions = {}) => {
    const runOne = this.run as (name: string, input: unknown, options: RunOptions) => Promise<unknown>
    const all = runAllOptions(inputs, options, this.#groups(name).capacityFor(name))
    return runAll((input, one) => runOne(name, input, one), inputs, all)
  }) as RunAll<M>

  /** A snapshot; cheap enough for every request. It asks no thread, so a blocked one does not hold it up. */
  stats(): ServiceStats {
    return {
      phase: this.#phase,
      ready: this.ready(),
      pool: this.#pool?.stats(),
      tasks: this.#tasks?.stats() ?? {},
      servers: this.#servers?.stats() ?? {},
      threads: this.#watch.threads(),
      events: this.#watch.events(),
    }
  }

  /**
   * Calls back for each event of any thread of this service, in this one: those of pools, of the limit, and of servers. Of
   * the pools of the main thread it is `pool` alone; of what else happens in this process, nothing. Those of single leases
   * and queries (`millpond:acquire`, `:release`, `:query`) only if `types` names them. No thread gets further ahead than
   * 1000 events: how many were dropped then is a `millpond:dropped`. Returns what takes the listener away; after `close()`
   * nothing is called back any more, and `on()` does nothing. Throws `ERR_OPTION`.
   *
   * @example
   * ```ts
   * import { createService } from 'millpond/service'
   *
   * const service = createService({ url: process.env.DATABASE_URL, limit: 20 })
   * service.on('event', (event) => console.log(event.type, event.thread.role, event))
   * const off = service.on('event', () => process.exit(1), { types: ['millpond:server-failed'] })
   * await service.start()
   * ```
   */
  on(event: 'event', listener: EventListener, options: { types?: readonly ServiceEvent['type'][] } = {}): () => void {
    checkListening(event, listener, options)
    this.#watch.on(listener, options.types)
    return () => this.#watch.off(listener)
  }

  /** Where the threads of a server said they listen, in the order of their index. */
  addresses(server: string): readonly unknown[] {
    return this.#servers?.addresses(server) ?? []
  }

  /**
   * Whether it is up: it has started and is not closing, every server has a thread that is ready, none has been given
   * up, and no module of tasks has only threads that keep ending. Reads what is known; asks nobody.
   */
  ready(): boolean {
    if (this.#phase !== 'running') return false
    return (this.#servers?.isReady() ?? true) && (this.#tasks?.isReady() ?? true)
  }

  /** One round trip to the database through the main thread's pool, within a deadline. Rejects when it fails. */
  async check(options?: CheckOptions): Promise<CheckResult> {
    return await roundTrip(this.pool, options)
  }

  /**
   * Replaces the threads of a server, or of all servers, one after the other: each new one is ready before its predecessor
   * stops, so that there are never fewer than wanted. Rejects with the reason if one does not get ready; its predecessor
   * goes on then, and so do those after it. Modules are loaded anew.
   *
   * @example
   * ```ts
   * import { createService, serverModule } from 'millpond/service'
   *
   * const http = { module: serverModule(new URL('./server.js', import.meta.url)), workers: 2 }
   * const service = createService({ url: process.env.DATABASE_URL, limit: 20, servers: { http } })
   * await service.start()
   * process.on('SIGHUP', () => {
   *   service.reload('http').catch((error: unknown) => console.error('The old threads go on.', error))
   * })
   * ```
   */
  async reload(server?: string): Promise<void> {
    if (this.#phase !== 'running')
      throw new PoolError('ERR_SERVICE_CLOSED', 'Cannot reload: the service is not running.')
    await this.#servers?.reload(server)
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
      this.#showStatus()
    } catch (error) {
      const interrupted = this.#closed !== undefined
      await this.close()
      throw interrupted ? closedError(error) : error
    }
  }

  async #start(): Promise<void> {
    const { before, tasks, signals = ['SIGTERM', 'SIGINT'], instrument } = this.#options
    this.#forgetSignals = onSignals(signals || [], () => this.close())
    if (instrument) await import(instrument.href)
    this.#goOn()
    this.#watch.open()
    this.#pool ??= await openPool(this.#shared.url, this.#shared.pool)
    this.#goOn()
    await this.pool.open()
    // A wrong password or a server that is down is better known now than with the first request.
    await this.#checkLimit(await this.pool.acquire())
    this.#goOn()
    await before?.({ pool: this.pool })
    this.#goOn()
    // Without any it is there for servers that ask for one.
    this.#tasks = new TaskGroups(tasks ?? {}, this.#shared, () => this.#showStatus())
    await this.#tasks.start()
    this.#goOn()
    this.#servers = this.#makeServers()
    await this.#servers.start()
    this.#goOn()
  }

  #makeServers(): Servers {
    const { servers = {}, tasks } = this.#options
    return new Servers({
      servers,
      shared: this.#shared,
      status: this.#status,
      hasTasks: tasks !== undefined,
      stopTimeoutMs: this.#closeTimeoutMs,
      onChange: () => this.#showStatus(),
    })
  }

  /** Tells all threads how the service is. */
  #showStatus(): void {
    setStatus(this.#status, this.ready() ? 'ready' : 'unready')
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

  #groups(task: string): TaskGroups {
    const { tasks } = this.#options
    if (this.#tasks && (this.#phase === 'starting' || this.#phase === 'running')) return this.#tasks
    const isEarly = this.#phase === 'new' || this.#phase === 'starting'
    const late = isEarly ? 'its task workers have not been started' : 'the service is closed'
    throw cannotRun(task, tasks ? late : 'the service has no module of tasks')
  }

  async #close(): Promise<void> {
    const closeTimeoutMs = this.#closeTimeoutMs
    this.#phase = 'closing'
    this.#showStatus()
    const startedAt = performance.now()
    const deadline = deferred<void>()
    const timer = closeTimeoutMs === Infinity ? undefined : setTimeout(deadline.resolve, closeTimeoutMs)
    if (!this.#tasks) this.#refuse()
    await this.#servers?.stop(closeTimeoutMs, deadline.promise)
    // What it is about is given up at its next step; `before` may take its time.
    await Promise.race([Promise.allSettled([this.#starting]), deadline.promise])
    await this.#tasks?.close(deadline.promise)
    clearTimeout(timer)
    await this.#pool?.close({ timeoutMs: Math.max(0, closeTimeoutMs - (performance.now() - startedAt)) })
    this.#forgetSignals()
    this.#watch.close()
    this.#phase = 'closed'
  }

  /**
   * Until other threads have pools, too, the main one's can close first: who waits for the database in `start()` or in
   * `before` is refused, who holds a lease may finish.
   */
  #refuse(): void {
    const closeTimeoutMs = this.#closeTimeoutMs
    const isUsed = this.#pool !== undefined && this.#pool.stats().leased > 0
    void this.#pool?.close({ timeoutMs: isUsed ? closeTimeoutMs : Math.min(closeTimeoutMs, unusedMs) })
  }
}

function closedError(cause?: unknown): PoolError {
  return new PoolError('ERR_SERVICE_CLOSED', 'Cannot start the service: it was closed.', { cause })
}
