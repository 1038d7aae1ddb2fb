import { Piscina } from 'piscina'
import { performance } from 'node:perf_hooks'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { TaskError, WorkerLostError, messageOf } from '../errors.ts'
import { Histogram } from '../histogram.ts'
import type { HistogramStats } from '../histogram.ts'
import { createCallWords, threadOf } from './abort.ts'
import { cannotCross, isCloneError } from './call.ts'
import type { Parcel, TaskReply } from './parcel.ts'
import { TaskDeadlockError, TaskQueueFullError } from './errors.ts'
import { JobQueue } from './job-queue.ts'
import { Job, canEnd } from './job.ts'
import type { JobPlace, Sent, TaskRequest } from './job.ts'
import { piscinaOptions } from './piscina.ts'
import type { ThreadPort } from './thread-port.ts'
import type { TaskCall, TaskThreadData } from './thread.ts'
import { toWire } from './wire.ts'

const entry = new URL('../../workers/watched-task.js', import.meta.url)
/** After a thread that ended while calls wait for one: doubled with each that ends before any has replied. */
const firstNudgeMs = 20
const longestNudgeMs = 500

export interface TaskWorkersOptions {
  readonly workers: number
  readonly concurrency: number
  readonly maxQueue: number
  readonly killAfterMs: number
  readonly data: TaskThreadData
}

/** What some task workers have done, since the service has started. */
export interface TaskStats {
  /** Threads that live, those that start included. */
  readonly workers: number
  /** Tasks that run, those whose callers have given up included. */
  readonly running: number
  readonly queued: number
  /** Tasks that have replied: with a result, or with what they threw. */
  readonly completed: number
  readonly failed: number
  /** Refused since `maxQueue` others were waiting, or since they could never have started. */
  readonly refused: number
  /** Calls given up by their callers. */
  readonly givenUp: number
  /** Threads that ended under way, */
  readonly workersLost: number
  /** and those of them that were ended here, since a task went on for `killAfterMs` after its caller had given up. */
  readonly workersKilled: number
  /** How long calls waited for a worker, and how long they ran from then on. */
  readonly waits: HistogramStats
  readonly runs: HistogramStats
}

/** What a reply is counted as. */
type Count = 'completed' | 'failed' | 'refused' | 'givenUp' | 'workersLost' | 'workersKilled'

/**
 * The threads that run the tasks of one module. Piscina owns the threads; the queue is here, so that it has a limit and
 * an order, and a call that is given up leaves it.
 *
 * Always
 *   1. running.size <= workers × concurrency, and queue.size === 0 unless they are equal
 *   2. a job is in `queue` or in `running` until its reply is settled; in `running` until its thread is free of it
 */
export class TaskWorkers implements JobPlace {
  readonly running: Set<Job> = new Set()
  readonly capacity: number
  readonly #options: TaskWorkersOptions
  readonly #piscina: Piscina
  readonly #queue = new JobQueue()
  /** Those that run. */
  readonly #byId = new Map<number, Job>()
  readonly #threads = new Map<number, ThreadPort>()
  readonly #waits = new Histogram()
  readonly #runs = new Histogram()
  readonly #counts: Record<Count, number> = {
    completed: 0,
    failed: 0,
    refused: 0,
    givenUp: 0,
    workersLost: 0,
    workersKilled: 0,
  }
  #closing = false
  #closed = false
  #ids = 0
  #nudge: NodeJS.Timeout | undefined
  #nudgeMs = firstNudgeMs
  #idle: Deferred<void> | undefined

  constructor(options: TaskWorkersOptions) {
    this.#options = options
    const { workers, concurrency, data } = options
    this.capacity = workers * concurrency
    this.#piscina = new Piscina({
      ...piscinaOptions,
      filename: entry.href,
      minThreads: workers,
      maxThreads: workers,
      idleTimeout: Infinity,
      concurrentTasksPerWorker: concurrency,
      recordTiming: false,
      workerData: data,
    })
    // A thread that died has rejected its tasks already; there is nobody else to tell.
    this.#piscina.on('error', (error: unknown) => {
      if (!this.#closed) process.emitWarning(`A task worker failed: ${messageOf(error)}`, 'MillpondWarning')
    })
    this.#piscina.on('workerDestroy', () => this.#lost())
  }

  get hasRoom(): boolean {
    return this.running.size < this.capacity
  }

  /** Resolves when a worker has loaded the module of tasks; rejects with the reason if it cannot be loaded. */
  async load(): Promise<TaskReply> {
    const task = 'the module of tasks'
    const request: TaskRequest = { task, input: nothing, words: createCallWords(), priority: Infinity }
    return this.send(request, undefined, undefined, () => {}).reply
  }

  /** Throws if it is refused. */
  send(
    request: TaskRequest,
    exported: string | undefined,
    parent: Job | undefined,
    tell: (value: Parcel) => void,
  ): Sent {
    const { task } = request
    if (parent ? this.#closed : this.#closing) {
      throw new TaskError(task, `Cannot run "${task}": the service is closing.`)
    }
    const job = new Job({ id: ++this.#ids, request, exported, place: this, parent, tell })
    if (this.hasRoom) this.#start(job)
    else {
      try {
        this.#admit(job)
      } catch (error) {
        parent?.children.delete(job)
        this.#counts.refused++
        throw error
      }
      this.#queue.push(job)
    }
    return { reply: job.settled.promise, giveUp: () => this.#giveUp(job) }
  }

  /** A task worker has introduced itself. */
  adopt(thread: ThreadPort): void {
    this.#threads.set(thread.threadId, thread)
    void thread.closed.then(() => this.#threads.delete(thread.threadId))
  }

  /** The job that a thread of these means. */
  jobOf(thread: ThreadPort, id: number): Job | undefined {
    const job = this.#byId.get(id)
    return job && threadOf(job.request.words) === thread.threadId ? job : undefined
  }

  stats(): TaskStats {
    return {
      workers: this.#piscina.threads.length,
      running: this.running.size,
      queued: this.#queue.size,
      ...this.#counts,
      waits: this.#waits.snapshot(),
      runs: this.#runs.snapshot(),
    }
  }

  /** From now on only running tasks may ask for others. Resolves when nothing runs or waits. */
  async finish(): Promise<void> {
    this.#closing = true
    if (this.running.size === 0) return
    this.#idle ??= deferred<void>()
    await this.#idle.promise
  }

  /** Pools close, threads end. What still runs at the deadline is cut off, and what waits is refused. */
  async close(deadline: Promise<void>): Promise<void> {
    this.#closing = this.#closed = true
    clearTimeout(this.#nudge)
    for (let job = this.#queue.shift(); job; job = this.#queue.shift()) {
      const { task } = job.request
      this.#settle(job, failed(new TaskError(task, `Cannot run "${task}": the service was closed.`)))
    }
    await Promise.race([Promise.all([...this.#threads.values()].map((thread) => thread.close())), deadline])
    await this.#piscina.destroy()
  }

  #admit(job: Job): void {
    const { parent, request } = job
    // Not in the queue yet, it counts there already.
    if (parent && !canEnd(parent)) throw new TaskDeadlockError(request.task, parent.request.task)
    if (this.#queue.size >= this.#options.maxQueue) {
      throw new TaskQueueFullError(request.task, this.#queue.size, this.#options.maxQueue)
    }
  }

  #start(job: Job): void {
    const { request, exported } = job
    const { task, input, words } = request
    job.startedAt = performance.now()
    if (exported !== undefined) this.#waits.record(job.startedAt - job.queuedAt)
    this.running.add(job)
    this.#byId.set(job.id, job)
    const call: TaskCall = { id: job.id, task, exported, input, words }
    // Piscina gets no signal: it would give the task a worker of its own, and end that thread to stop it.
    const sent = this.#piscina.run(call, { transferList: [...(input.transfer ?? [])] }) as Promise<number>
    sent.then(
      (threadId) => this.#ended(job, threadId),
      (cause: unknown) => this.#ended(job, undefined, cause),
    )
  }

  /** The thread is free of it. */
  #ended(job: Job, threadId: number | undefined, cause?: unknown): void {
    // What it has posted before it told Piscina is there, though the event may be still to come.
    this.#threads.get(threadId ?? threadOf(job.request.words))?.drain()
    this.running.delete(job)
    this.#byId.delete(job.id)
    if (job.exported !== undefined) this.#runs.record(performance.now() - job.startedAt)
    this.#settle(job, job.reply ?? failed(lostOrRefused(job.request, cause)))
    const next = this.#queue.shift()
    if (next) this.#start(next)
    else if (this.running.size === 0) {
      this.#idle?.resolve()
      this.#idle = undefined
    }
  }

  #settle(job: Job, reply: TaskReply): void {
    if (job.reply) this.#nudgeMs = firstNudgeMs
    if (job.exported !== undefined) this.#counts[reply.ok ? 'completed' : 'failed']++
    job.settle(reply)
  }

  #giveUp(job: Job): void {
    const { task, words } = job.request
    this.#counts.givenUp++
    if (this.#queue.remove(job)) {
      job.settle(failed(new TaskError(task, `The task "${task}" was given up.`)))
      return
    }
    const { killAfterMs } = this.#options
    if (!this.running.has(job) || killAfterMs === Infinity) return
    job.killer = setTimeout(() => {
      const threadId = threadOf(words)
      // One that has not begun ends as soon as it does.
      const worker = threadId === 0 ? undefined : this.#piscina.threads.find((one) => one.threadId === threadId)
      if (!worker || !this.running.has(job)) return
      this.#counts.workersKilled++
      process.emitWarning(
        `The task "${task}" went on for ${killAfterMs} ms after its caller had given up: its thread is ended`,
        'MillpondWarning',
      )
      void worker.terminate()
    }, killAfterMs)
  }

  #lost(): void {
    if (this.#closed) return
    this.#counts.workersLost++
    this.#nudgeLater()
  }

  /**
   * Piscina replaces a thread that ends, but not one that ends while it starts; nor any other from then on before it
   * is asked to run something. If calls wait there, it has to be asked.
   */
  #nudgeLater(): void {
    this.#nudge ??= setTimeout(() => {
      this.#nudge = undefined
      if (this.#closed || this.running.size === 0 || this.#piscina.threads.length >= this.#options.workers) return
      this.#nudgeMs = Math.min(longestNudgeMs, this.#nudgeMs * 2)
      const call: TaskCall = { id: 0, task: '', exported: undefined, input: nothing, words: createCallWords() }
      this.#piscina.run(call).catch(() => undefined)
      this.#nudgeLater()
    }, this.#nudgeMs).unref()
  }
}

const nothing: Parcel = { value: undefined }

function failed(error: unknown): TaskReply {
  return { ok: false, error: toWire(error) }
}

/** Our own entry never rejects: whatever rejects is Piscina's word about the message or the thread. */
function lostOrRefused(request: TaskRequest, cause: unknown): Error {
  if (isCloneError(cause)) return cannotCross(request, cause)
  const code = cause instanceof Error ? /exited with code: (\d+)/.exec(cause.message)?.[1] : undefined
  const options = cause === undefined ? undefined : { cause }
  return new WorkerLostError(request.task, code === undefined ? undefined : Number(code), options)
}
