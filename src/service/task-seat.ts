import { Piscina } from 'piscina'
import { performance } from 'node:perf_hooks'
import type { MessagePort, Worker } from 'node:worker_threads'
import { Backoff } from '../backoff.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { PoolError, messageOf } from '../errors.ts'
import { sentWords } from './abort.ts'
import type { SentWords } from './abort.ts'
import type { Job, JobSeat } from './job.ts'
import type { TaskReply } from './parcel.ts'
import { piscinaOptions } from './piscina.ts'
import type { TaskCall, TaskThreadData } from './thread.ts'
import type { ThreadPort } from './thread-port.ts'
import { fromWire, toWire } from './wire.ts'

const entry = new URL('../../workers/watched-task.cjs', import.meta.url)
/** A thread that has lived so long is not one that keeps failing. */
const soundAfterMs = 10_000

export interface TaskSeatOptions {
  readonly concurrency: number
  readonly startTimeoutMs: number
  readonly data: TaskThreadData
  /** Has the thread load the module; never rejects. */
  readonly load: (seat: TaskSeat) => Promise<TaskReply>
  /** Called whenever `state` has changed. */
  readonly onChange: (seat: TaskSeat) => void
  /** Its thread has ended, for this reason if it is known. Called before anything follows from that. */
  readonly onEnd: (seat: TaskSeat, cause: unknown) => void
  /** Whether calls wait for a thread: only then a pause keeps the process alive. */
  readonly isWaitedFor: () => boolean
}

/** A call on its way to a thread. */
export type SentCall = Omit<TaskCall, 'words'> & { readonly words: SentWords }

/** The ways to a thread and from it. */
export interface TaskLine {
  readonly thread: ThreadPort
  readonly port: MessagePort
}

export type TaskSeatState = 'starting' | 'ready' | 'restarting' | 'closed'

/**
 * The place of one task worker, in which one thread follows the other. Each thread has a Piscina of its own: that would
 * start another one at once, or not at all if it ended while it started.
 *
 * State
 *   starting     a thread loads the module, whose predecessor, if any, was not of those that keep failing
 *   ready        it has loaded the module, or knows why it cannot; calls may be given to it
 *   restarting   threads have ended before they were of any use: another one follows after a pause that doubles
 *   closed       no other follows
 */
export class TaskSeat implements JobSeat {
  readonly #options: TaskSeatOptions
  readonly #backoff = new Backoff(Math.random)
  #state: TaskSeatState = 'starting'
  /** That of the current thread, if there is one. */
  #piscina: Piscina | undefined
  #thread: Worker | undefined
  /** The way to it, once it has loaded the module. */
  #line: TaskLine | undefined
  /** The memory of the words that it was sent last. */
  #memory: ArrayBufferLike | undefined
  #bornAt = 0
  #startTimer: NodeJS.Timeout | undefined
  #pause: NodeJS.Timeout | undefined
  readonly #jobs = new Set<Job>()
  /** Whether its thread has replied to a call, */
  wasOfUse = false
  /** and whether it is to end for a task that does not. */
  isKilled = false

  constructor(options: TaskSeatOptions) {
    this.#options = options
  }

  get state(): TaskSeatState {
    return this.#state
  }

  /** Whether it has a thread, be it one that starts. */
  get isAlive(): boolean {
    return this.#piscina !== undefined
  }

  get hasRoom(): boolean {
    return this.#state === 'ready' && this.isAlive && this.#jobs.size < this.#options.concurrency
  }

  /** What its thread runs. */
  get jobs(): ReadonlySet<Job> {
    return this.#jobs
  }

  /** Starts a thread. Resolves when it has loaded the module, or with the reason why not; never rejects. */
  begin(): Promise<TaskReply> {
    const { data, load } = this.#options
    this.#bornAt = performance.now()
    this.wasOfUse = this.isKilled = false
    const piscina = new Piscina({
      ...piscinaOptions,
      filename: entry.href,
      minThreads: 1,
      maxThreads: 1,
      idleTimeout: Infinity,
      recordTiming: false,
      workerData: data,
    })
    this.#piscina = piscina
    let cause: unknown
    let wasBusy = false
    this.#thread = piscina.threads[0]
    this.#thread?.prependListener('error', (error: unknown) => (cause = error))
    this.#thread?.prependListener('exit', (code) => (cause ??= new Error(`worker exited with code: ${code}`)))
    piscina.on('workerDestroy', () => {
      wasBusy = this.#jobs.size > 0
      this.#lost(piscina, cause)
    })
    // Those who call its tasks hear of it; where there are none, there is nobody else to tell.
    piscina.on('error', (error: unknown) => wasBusy || this.#warn(`failed: ${messageOf(error)}`))
    const loaded = deferred<TaskReply>()
    this.#limitStart(loaded)
    void load(this).then((reply) => {
      loaded.resolve(reply)
      if (this.#piscina !== piscina || this.#state === 'closed') return
      clearTimeout(this.#startTimer)
      this.#move('ready')
    })
    return loaded.promise
  }

  /** Gives its thread the call that loads the module. Resolves with the thread's id; rejects if it ends before. */
  async load(call: TaskCall): Promise<number> {
    return (await this.#piscina?.run(call)) as number
  }

  /** From now on calls go this way. */
  connect(line: TaskLine | undefined): void {
    this.#line = line
    this.#memory = undefined
    // A port that has closed must not be read.
    void line?.thread.closed.then(() => {
      if (this.#line === line) this.#line = undefined
    })
  }

  /** Gives its thread a job. Throws what structured clone throws; the job is to be ended then, too. */
  start(job: Job): void {
    const { id, exported } = job
    const { task, input, words } = job.request
    this.#jobs.add(job)
    job.seat = this
    // The thread, not the port: that closes before it is known how the thread has ended.
    if (this.#jobs.size === 1) this.#thread?.ref()
    const call: SentCall = { id, task, exported, input, words: sentWords(words, this.#memory) }
    this.#line?.port.postMessage(call, input.transfer)
    this.#memory = words.buffer
  }

  end(job: Job): void {
    if (this.#jobs.delete(job) && this.#jobs.size === 0) this.#thread?.unref()
  }

  /** Hears at once what its thread has posted so far. */
  drain(): void {
    this.#line?.thread.drain()
  }

  /** Somebody waits for its thread. */
  want(): void {
    this.#pause?.ref()
  }

  kill(): void {
    this.isKilled = true
    this.#terminate()
  }

  /** No other thread follows this one. */
  stop(): void {
    this.#state = 'closed'
    clearTimeout(this.#pause)
    clearTimeout(this.#startTimer)
  }

  async close(): Promise<void> {
    this.stop()
    await this.#piscina?.destroy()
  }

  #limitStart(loaded: Deferred<TaskReply>): void {
    const { startTimeoutMs, data } = this.#options
    if (startTimeoutMs === Infinity) return
    this.#startTimer = setTimeout(() => {
      const error = new PoolError(
        'ERR_TASK_START_TIMEOUT',
        `The module of tasks ${data.module} was not loaded within ${startTimeoutMs} ms.`,
      )
      loaded.resolve({ ok: false, error: toWire(error) })
      this.#terminate()
    }, startTimeoutMs)
  }

  #terminate(): void {
    void this.#thread?.terminate()
  }

  #lost(piscina: Piscina, cause: unknown): void {
    if (this.#piscina !== piscina) return
    this.#piscina = undefined
    clearTimeout(this.#startTimer)
    // From this moment on it starts no other.
    void piscina.destroy()
    this.#options.onEnd(this, cause)
    this.#line = this.#thread = undefined
    if (this.#state === 'closed') return
    const now = performance.now()
    if (this.isKilled || now - this.#bornAt > soundAfterMs) this.#backoff.reset()
    else if (!this.wasOfUse) this.#backoff.failed(undefined, this.#backoff.round, now)
    const pauseMs = this.#backoff.until - now
    if (pauseMs <= 0) {
      this.#move('starting')
      return this.#again()
    }
    this.#move('restarting')
    this.#pause = setTimeout(() => this.#again(), pauseMs).unref()
    if (this.#options.isWaitedFor()) this.want()
  }

  #again(): void {
    void this.begin().then((reply) => {
      // Nobody waits to hear.
      if (!reply.ok) this.#warn(`failed: ${messageOf(fromWire(reply.error))}`)
    })
  }

  #move(to: TaskSeatState): void {
    this.#state = to
    this.#options.onChange(this)
  }

  #warn(what: string): void {
    if (this.#state !== 'closed') process.emitWarning(`A task worker ${what}`, 'MillpondWarning')
  }
}
