import { Piscina } from 'piscina'
import type { MessagePort } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import { TaskError, WorkerLostError } from '../errors.ts'
import { abort, createAbortWord } from './abort.ts'
import type { RunOptions } from './modules.ts'
import { cannotCross, unwrap } from './run-client.ts'
import type { Introduction, TaskCall, TaskThreadData } from './thread.ts'
import type { Reply } from './wire.ts'

const entry = new URL('../../workers/task.js', import.meta.url)

export interface TaskWorkersOptions {
  readonly workers: number
  readonly concurrency: number
  readonly data: TaskThreadData
}

/**
 * The threads that run tasks. Piscina owns the threads and the queue; this side turns its errors into ours and sees
 * to it that pools are closed before their threads are.
 */
export class TaskWorkers {
  readonly #piscina: Piscina
  readonly #service: string
  /** One port per living task worker. */
  readonly #ports = new Set<MessagePort>()
  readonly #running = new Set<Promise<unknown>>()
  #closing = false

  constructor({ workers, concurrency, data }: TaskWorkersOptions) {
    this.#service = data.service
    process.on('workerMessage', this.#onMessage)
    this.#piscina = new Piscina({
      filename: entry.href,
      minThreads: workers,
      maxThreads: workers,
      idleTimeout: Infinity,
      concurrentTasksPerWorker: concurrency,
      // Its default stops a worker's event loop between two tasks, and the pool in it with it.
      atomics: 'disabled',
      workerData: data,
    })
    // A thread that died has rejected its tasks already; there is nobody else to tell.
    this.#piscina.on('error', (error: unknown) => {
      if (!this.#closing) process.emitWarning(`A task worker failed: ${String(error)}`)
    })
  }

  /** Resolves when a worker has loaded the module of tasks; rejects with the reason if it cannot be loaded. */
  async load(): Promise<void> {
    await this.#send({ task: undefined, input: undefined, abort: undefined })
  }

  async run(task: string, input: unknown, { signal }: RunOptions = {}): Promise<unknown> {
    signal?.throwIfAborted()
    if (!signal) return this.#send({ task, input, abort: undefined })
    const word = createAbortWord()
    const aborted = deferred<never>()
    const onAbort = (): void => {
      abort(word)
      aborted.reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      // Piscina gets no signal: it would give the task a worker of its own, and end that thread to stop it.
      return await Promise.race([this.#send({ task, input, abort: word }), aborted.promise])
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** As `run`, for a caller in another thread who watches its own signal. */
  async runFor(task: string, input: unknown, word: Int32Array | undefined): Promise<unknown> {
    return this.#send({ task, input, abort: word })
  }

  /** Running and queued tasks finish, pools close, threads end. What is not done at the deadline is cut off. */
  async close(deadline: Promise<void>): Promise<void> {
    this.#closing = true
    await Promise.race([Promise.allSettled(this.#running), deadline])
    await Promise.race([this.#closePools(), deadline])
    await this.#piscina.destroy()
    process.off('workerMessage', this.#onMessage)
  }

  async #closePools(): Promise<void> {
    await Promise.all(
      [...this.#ports].map(
        (port) =>
          new Promise<void>((resolve) => {
            port.once('close', resolve)
            port.postMessage('close')
          }),
      ),
    )
  }

  async #send(call: TaskCall): Promise<unknown> {
    const task = call.task ?? 'the module of tasks'
    if (this.#closing) throw new TaskError(task, `Cannot run "${task}": the service is closing.`)
    const sent = this.#piscina.run(call) as Promise<Reply>
    this.#running.add(sent)
    try {
      return unwrap(await this.#arrived(sent, task), task)
    } finally {
      this.#running.delete(sent)
    }
  }

  /** Our own entry never rejects: whatever rejects here is Piscina's word about the message or the thread. */
  async #arrived(sent: Promise<Reply>, task: string): Promise<Reply> {
    try {
      return await sent
    } catch (cause) {
      if (cause instanceof Error && cause.name === 'DataCloneError') throw cannotCross(task, cause)
      const code = cause instanceof Error ? /exited with code: (\d+)/.exec(cause.message)?.[1] : undefined
      throw new WorkerLostError(task, code === undefined ? undefined : Number(code), { cause })
    }
  }

  readonly #onMessage = (message: unknown): void => {
    const introduction = message as Partial<Introduction> | null
    if (introduction?.millpond !== 'task worker' || introduction.service !== this.#service) return
    const { port } = introduction
    if (!port) return
    this.#ports.add(port)
    port.once('close', () => this.#ports.delete(port))
    port.unref()
  }
}
