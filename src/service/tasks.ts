import { performance } from 'node:perf_hooks'
import type { MessagePort } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { TaskError, WorkerLostError } from '../errors.ts'
import { Histogram } from '../histogram.ts'
import type { HistogramStats } from '../histogram.ts'
import { createCallWords, threadOf } from './abort.ts'
import { cannotCross, isCloneError } from './call.ts'
import type { Parcel, TaskReply } from './parcel.ts'
import { TaskDeadlockError, TaskQueueFullError } from './errors.ts'
import { JobQueue } from './job-queue.ts'
import { Job, canEnd } from './job.ts'
import type { JobPlace, Sent, TaskRequest } from './job.ts'
import { TaskSeat } from './task-seat.ts'
import type { TaskLine } from './task-seat.ts'
import type { ThreadPort } from './thread-port.ts'
import type { TaskThreadData } from './thread.ts'
import { toWire } from './wire.ts'

export interface TaskWorkersOptions {
  readonly workers: number
  readonly concurrency: number
  readonly maxQueue: number
  readonly killAfterMs: number
  readonly startTimeoutMs: number
  readonly data: TaskThreadData
  /** Called when `isReady` may have changed. */
  readonly onChange: () => void
}

/** What some task workers have done, since the service has started. */
export interface TaskStats {
  /** Threads that live, those that start included. */
  readonly workers: number
  /** Threads that are missing, or start again, after others that ended before they were of any use: they have to pause. */
  readonly workersRestarting: number
  /** Tasks that run, those whose callers have given up included. */
  readonly running: number
  readonly queued: number
  /** Tasks that have replied: with a result, */
  readonly completed: number
  /** or with what they threw, or that there is no such task, or that the result cannot cross. */
  readonly failed: number
  /** Tasks whose thread has ended before they had replied. */
  readonly lost: number
  /**
   * Calls that have not begun: `maxQueue` others were waiting, or they could never have started, or the service was closed,
   * or the input cannot cross.
   */
  readonly refused: number
  /** Calls given up by their callers. Those that ran by then are one of the others, too, once they end. */
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
type Count = 'completed' | 'failed' | 'lost' | 'refused' | 'givenUp' | 'workersLost' | 'workersKilled'

/**
 * The threads that run the tasks of one module. The queue is here, not in Piscina, so that it has a limit and an order,
 * and a call that is given up leaves it.
 *
 * Always
 *   1. running.size <= workers × concurrency, and queue.size === 0 unless no seat has room
 *   2. a job is in `queue` or in `running` until its reply is settled; in `running` until its thread is free of it
 */
export class TaskWorkers implements JobPlace {
  readonly running: Set<Job> = new Set()
  readonly capacity: number
  readonly #options: TaskWorkersOptions
  readonly #seats: readonly TaskSeat[]
  readonly #queue = new JobQueue()
  /** Those that run, and those that only load the module. */
  readonly #byId = new Map<number, Job>()
  readonly #threads = new Map<number, TaskLine>()
  readonly #waits = new Histogram()
  readonly #runs = new Histogram()
  readonly #counts: Record<Count, number> = {
    completed: 0,
    failed: 0,
    lost: 0,
    refused: 0,
    givenUp: 0,
    workersLost: 0,
    workersKilled: 0,
  }
  #closing = false
  #closed = false
  #ids = 0
  #idle: Deferred<void> | undefined

  constructor(options: TaskWorkersOptions) {
    this.#options = options
    const { workers, concurrency, startTimeoutMs, data } = options
    this.capacity = workers * concurrency
    this.#seats = Array.from(
      { length: workers },
      () =>
        new TaskSeat({
          concurrency,
          startTimeoutMs,
          data,
          load: (seat) => this.#load(seat),
          onChange: () => {
            this.#next()
            options.onChange()
          },
          onEnd: (seat, cause) => this.#lost(seat, cause),
          isWaitedFor: () => this.#queue.size > 0,
        }),
    )
  }

  /** Whether there is room, or will be when all threads are there. */
  get hasRoom(): boolean {
    return this.running.size < this.capacity
  }

  /** Something runs, or waits. */
  get isBusy(): boolean {
    return this.running.size > 0 || this.#queue.size > 0
  }

  /** Whether not all of its threads pause since they keep ending. */
  get isReady(): boolean {
    return this.#seats.some((seat) => seat.state !== 'restarting')
  }

  /** Starts the threads. Resolves when one has loaded the module, or with the reason if it cannot be loaded. */
  async start(): Promise<TaskReply> {
    return Promise.race(this.#seats.map((seat) => seat.begin()))
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
      this.#counts.refused++
      throw new TaskError(task, `Cannot run "${task}": the service is closing.`)
    }
    const job = new Job({ id: ++this.#ids, request, exported, place: this, parent, tell, onReply: this.#replied })
    const seat = this.#freest()
    if (seat) this.#start(job, seat)
    else {
      try {
        this.#admit(job)
      } catch (error) {
        parent?.children.delete(job)
        this.#counts.refused++
        throw error
      }
      this.#queue.push(job)
      for (const one of this.#seats) one.want()
    }
    return { reply: job.settled.promise, giveUp: () => this.#giveUp(job) }
  }

  /** A task worker has introduced itself, with this port. */
  adopt(thread: ThreadPort, port: MessagePort): void {
    this.#threads.set(thread.threadId, { thread, port })
    void thread.closed.then(() => this.#threads.delete(thread.threadId))
  }

  /** The job that a thread of these means. */
  jobOf(thread: ThreadPort, id: number): Job | undefined {
    const job = this.#byId.get(id)
    return job && threadOf(job.request.words) === thread.threadId ? job : undefined
  }

  stats(): TaskStats {
    return {
      workers: this.#seats.filter((seat) => seat.isAlive).length,
      workersRestarting: this.#seats.filter((seat) => seat.state === 'restarting').length,
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
    if (!this.isBusy) return
    this.#idle ??= deferred<void>()
    await this.#idle.promise
  }

  /** Pools close, threads end. What still runs at the deadline is cut off, and what waits is refused. */
  async close(deadline: Promise<void>): Promise<void> {
    this.#closing = this.#closed = true
    for (const seat of this.#seats) seat.stop()
    for (let job = this.#queue.shift(); job; job = this.#queue.shift()) {
      const { task } = job.request
      this.#counts.refused++
      job.settle(failed(new TaskError(task, `Cannot run "${task}": the service was closed.`)))
    }
    await Promise.race([Promise.all([...this.#threads.values()].map(({ thread }) => thread.close())), deadline])
    await Promise.all(this.#seats.map((seat) => seat.close()))
  }

  #admit(job: Job): void {
    const { parent, request } = job
    // Not in the queue yet, it counts there already.
    if (parent && !canEnd(parent)) throw new TaskDeadlockError(request.task, parent.request.task)
    // What threads that are missing will run does not count.
    const waiting = this.running.size + this.#queue.size - this.capacity
    if (waiting >= this.#options.maxQueue) {
      throw new TaskQueueFullError(request.task, this.#queue.size, this.#options.maxQueue)
    }
  }

  /** The one with the fewest tasks, of those that have room. */
  #freest(): TaskSeat | undefined {
    let freest: TaskSeat | undefined
    for (const seat of this.#seats) {
      if (seat.hasRoom && (!freest || seat.jobs.size < freest.jobs.size)) freest = seat
      if (freest?.jobs.size === 0) break
    }
    return freest
  }

  /** Starts what waits, as far as there is room. */
  #next(): void {
    while (this.#queue.size > 0) {
      const seat = this.#freest()
      const job = seat && this.#queue.shift()
      if (!job) return
      this.#start(job, seat)
    }
    if (this.isBusy) return
    this.#idle?.resolve()
    this.#idle = undefined
  }

  #start(job: Job, seat: TaskSeat): void {
    job.startedAt = performance.now()
    this.#waits.record(job.startedAt - job.queuedAt)
    this.running.add(job)
    this.#byId.set(job.id, job)
    try {
      seat.start(job)
    } catch (cause) {
      // Whoever sends it has it in no list yet.
      queueMicrotask(() => {
        this.#ended(job, 'refused', failed(isCloneError(cause) ? cannotCross(job.request, cause) : cause))
        this.#next()
      })
    }
  }

  /** Its thread is free of it. */
  readonly #replied = (job: Job, reply: TaskReply): void => {
    if (job.seat) job.seat.wasOfUse = true
    this.#ended(job, reply.ok ? 'completed' : 'failed', reply)
    this.#next()
  }

  /** The thread of a seat has ended, and with it what it has not replied to. */
  #lost(seat: TaskSeat, cause: unknown): void {
    if (seat.state !== 'closed') this.#counts.workersLost++
    // What it has posted before is there, though the event may be still to come.
    seat.drain()
    for (const job of seat.jobs) this.#ended(job, 'lost', failed(lost(job.request, cause)))
    this.#next()
  }

  #ended(job: Job, as: Count, reply: TaskReply): void {
    this.running.delete(job)
    this.#byId.delete(job.id)
    job.seat?.end(job)
    this.#runs.record(performance.now() - job.startedAt)
    this.#counts[as]++
    job.settle(reply)
  }

  /** Has a thread load the module: a call that runs nothing. */
  async #load(seat: TaskSeat): Promise<TaskReply> {
    const task = 'the module of tasks'
    const request: TaskRequest = { task, input: nothing, words: createCallWords(), priority: 0 }
    let reply: TaskReply | undefined
    const job = new Job({
      id: ++this.#ids,
      request,
      exported: undefined,
      place: this,
      parent: undefined,
      tell: () => {},
      onReply: (_, its) => (reply = its),
    })
    this.#byId.set(job.id, job)
    let why: unknown
    try {
      seat.connect(this.#threads.get(await seat.load({ id: job.id, exported: undefined, ...request })))
    } catch (cause) {
      why = cause
    }
    // What it has posted before it told Piscina is there, though the event may be still to come.
    this.#threads.get(threadOf(request.words))?.thread.drain()
    this.#byId.delete(job.id)
    return reply ?? failed(lost(request, why))
  }

  #giveUp(job: Job): void {
    const isQueued = this.#queue.remove(job)
    // Its caller's thread may end after its caller has left.
    if (job.isGivenUp || !(isQueued || this.running.has(job))) return
    const { task, words } = job.request
    job.isGivenUp = true
    this.#counts.givenUp++
    if (isQueued) {
      job.settle(failed(new TaskError(task, `The task "${task}" was given up.`)))
      return this.#next()
    }
    const { killAfterMs } = this.#options
    if (killAfterMs === Infinity) return undefined
    job.killer = setTimeout(() => {
      // One that has not begun ends as soon as it does.
      if (!this.running.has(job) || threadOf(words) === 0) return
      this.#counts.workersKilled++
      process.emitWarning(
        `The task "${task}" went on for ${killAfterMs} ms after its caller had given up: its thread is ended`,
        'MillpondWarning',
      )
      this.#seats.find((seat) => seat.jobs.has(job))?.kill()
    }, killAfterMs)
    return undefined
  }
}

const nothing: Parcel = { value: undefined }

function failed(error: unknown): TaskReply {
  return { ok: false, error: toWire(error) }
}

function lost(request: TaskRequest, cause: unknown): Error {
  const code = cause instanceof Error ? /exited with code: (\d+)/.exec(cause.message)?.[1] : undefined
  const options = cause === undefined ? undefined : { cause }
  return new WorkerLostError(request.task, code === undefined ? undefined : Number(code), options)
}
