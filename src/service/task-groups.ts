import { TaskError } from '../errors.ts'
import type { Job, Send, Sent, TaskRequest } from './job.ts'
import type { Parcel } from './parcel.ts'
import type { TasksOptions } from './options.ts'
import { ThreadPort } from './thread-port.ts'
import type { ThreadHost } from './thread-port.ts'
import type { Introduction, TaskThreadData, ThreadData } from './thread.ts'
import { TaskWorkers } from './tasks.ts'
import type { TaskStats } from './tasks.ts'
import { fromWire } from './wire.ts'

/** The name of the only group, where there is one module of tasks. */
const onlyGroup = 'tasks'

/** Threads of a group that says nothing of it. */
export const defaultWorkers = 2

/** All task workers of a service by the name of their module, and the threads that call them. */
export class TaskGroups {
  readonly #service: string
  readonly #groups = new Map<string, TaskWorkers>()
  /** One module whose tasks are called by their own names. */
  readonly #single: boolean

  /** `onChange` is called when `isReady()` may have changed. */
  constructor(
    tasks: TasksOptions<unknown> | Readonly<Record<string, TasksOptions<unknown>>>,
    shared: ThreadData,
    onChange: () => void,
  ) {
    this.#service = shared.service
    this.#single = isSingle(tasks)
    process.on('workerMessage', this.#onMessage)
    const groups = isSingle(tasks) ? { [onlyGroup]: tasks } : tasks
    for (const [group, options] of Object.entries(groups)) {
      this.#groups.set(group, workersOf(group, options, shared, onChange))
    }
  }

  readonly send: Send = (request, tell) => this.#send(request, undefined, tell)

  /** Starts all threads. Resolves when one of each group has loaded its module; rejects if one cannot be loaded. */
  async start(): Promise<void> {
    const replies = await Promise.all([...this.#groups.values()].map((group) => group.start()))
    for (const reply of replies) if (!reply.ok) throw fromWire(reply.error)
  }

  /** Whether no group has only threads that keep ending. */
  isReady(): boolean {
    return [...this.#groups.values()].every((group) => group.isReady)
  }

  /** How many tasks of that name's group run at a time. */
  capacityFor(task: string): number {
    return this.#find(task).workers.capacity
  }

  stats(): Readonly<Record<string, TaskStats>> {
    return Object.fromEntries([...this.#groups].map(([name, group]) => [name, group.stats()]))
  }

  /** Running and queued tasks finish, pools close, threads end. What is not done at the deadline is cut off. */
  async close(deadline: Promise<void>): Promise<void> {
    let over = false
    void deadline.then(() => (over = true))
    const groups = [...this.#groups.values()]
    // A task of one group may ask for one of another until the last has ended.
    do await Promise.race([Promise.all(groups.map((group) => group.finish())), deadline])
    while (!over && groups.some((group) => group.isBusy))
    await Promise.all(groups.map((group) => group.close(deadline)))
    process.off('workerMessage', this.#onMessage)
  }

  #send(request: TaskRequest, parent: Job | undefined, tell: (value: Parcel) => void): Sent {
    const { workers, exported } = this.#find(request.task)
    return workers.send(request, exported, parent, tell)
  }

  #find(task: string): { workers: TaskWorkers; exported: string } {
    const dot = this.#single ? -1 : task.indexOf('.')
    const workers = this.#groups.get(this.#single ? onlyGroup : task.slice(0, Math.max(0, dot)))
    if (workers) return { workers, exported: task.slice(dot + 1) }
    if (this.#groups.size === 0) throw cannotRun(task, 'the service has no module of tasks')
    throw new TaskError(task, `There is no task "${task}": it must begin with ${this.#prefixes()}.`)
  }

  #prefixes(): string {
    return [...this.#groups.keys()].map((name) => `"${name}."`).join(' or ')
  }

  readonly #onMessage = (message: unknown): void => {
    const introduction = message as Partial<Introduction> | null
    if (introduction?.millpond !== 'thread of a service' || introduction.service !== this.#service) return
    const { port, threadId = 0, group } = introduction
    if (!port) return
    const workers = group === undefined ? undefined : this.#groups.get(group)
    const host: ThreadHost = {
      jobOf: (thread, id) => workers?.jobOf(thread, id),
      send: (request, parent, tell) => this.#send(request, parent, tell),
    }
    const thread = new ThreadPort(threadId, port, host)
    workers?.adopt(thread, port)
  }
}

export function isSingle(tasks: object): tasks is TasksOptions<unknown> {
  return typeof (tasks as { module?: { href?: unknown } }).module?.href === 'string'
}

function workersOf(
  group: string,
  options: TasksOptions<unknown>,
  shared: ThreadData,
  onChange: () => void,
): TaskWorkers {
  const { module, workers = defaultWorkers, concurrency = 1, maxQueue = Infinity, startTimeoutMs = 30_000 } = options
  const { killAfterMs = concurrency > 1 ? Infinity : 5_000 } = options
  // A thread that computes gives nothing back meanwhile: it keeps one idle connection at the most, and none for good. One
  // that runs several tasks has as many in use, which are idle all at once, and would be opened anew a moment later.
  const { max = concurrency, maxIdle = concurrency > 1 ? max : Math.min(1, max), ...others } = shared.pool
  const pool = { ...others, min: 0, max, maxIdle }
  const data: TaskThreadData = { ...shared, module: module.href, group, pool }
  return new TaskWorkers({ workers, concurrency, maxQueue, killAfterMs, startTimeoutMs, data, onChange })
}

/** Why no task can be run now. */
export function cannotRun(task: string, why: string): TaskError {
  return new TaskError(task, `Cannot run "${task}": ${why}.`)
}
