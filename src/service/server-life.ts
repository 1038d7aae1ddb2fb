import { MessageChannel, Worker, receiveMessageOnPort } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { PoolError, WorkerLostError } from '../errors.ts'
import type { ListenDesk } from './listen-desk.ts'
import type { FromServerThread, ListenAnswer, ServerData, ToServerThread } from './server-messages.ts'
import { fromWire } from './wire.ts'

const entry = new URL('../../workers/server.js', import.meta.url)
/** How long a thread may take to end by itself after its server has failed. */
const failedGraceMs = 500

export interface LifeOptions {
  readonly data: Omit<ServerData, 'port'>
  readonly desk: ListenDesk
  readonly startTimeoutMs: number
  readonly onAddress: (address: unknown) => void
  /** What it said of its end, or threw. */
  readonly onFailed: (error: unknown) => void
  readonly onExit: (life: Life) => void
}

/**
 * One thread of a server's, from its start to its exit.
 *
 *   ready    resolves when the server's `start` has; rejects if that failed, took too long, or the thread ended
 *   exited   resolves when the thread has ended; its sockets are closed then
 */
export class Life {
  readonly startedAt: number = performance.now()
  readonly threadId: number
  readonly ready: Promise<void>
  readonly exited: Promise<void>
  readonly worker: Worker
  hasEnded = false
  isStopping = false
  /** What its thread died of. */
  cause: unknown
  readonly #options: LifeOptions
  readonly #port: MessagePort
  readonly #ready: Deferred<void> = deferred()
  #kept: Deferred<void> | undefined
  #startTimer: NodeJS.Timeout | undefined

  constructor(options: LifeOptions) {
    this.#options = options
    const { data, desk } = options
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.worker = new Worker(entry, {
      workerData: { ...data, port: port2 } satisfies ServerData,
      transferList: [port2],
      name: `${data.name} ${data.index}`,
    })
    this.threadId = this.worker.threadId
    this.ready = this.#ready.promise
    // Of a restart nobody waits for it.
    this.ready.catch(() => undefined)
    this.worker.on('error', (error) => {
      this.cause = error
    })
    this.exited = new Promise<void>((resolve) => {
      this.worker.once('exit', (code) => {
        this.hasEnded = true
        clearTimeout(this.#startTimer)
        // Its last words may be still to come.
        for (let next = receiveMessageOnPort(port1); next; next = receiveMessageOnPort(port1)) {
          this.#hear(next.message as FromServerThread)
        }
        port1.close()
        desk.gone(this)
        const cause = this.cause === undefined ? undefined : { cause: this.cause }
        this.#ready.reject(new WorkerLostError(data.name, code, cause))
        this.#kept?.resolve()
        resolve()
        options.onExit(this)
      })
    })
    port1.on('message', (message: FromServerThread) => this.#hear(message))
    this.#limitStart()
  }

  /** Lets the server finish within the time; its thread is ended when that is over, or the deadline comes. */
  async stop(timeoutMs: number, deadline?: Promise<void>): Promise<void> {
    if (this.hasEnded) return
    this.isStopping = true
    clearTimeout(this.#startTimer)
    this.#say({ type: 'stop', timeoutMs })
    const timer = timeoutMs === Infinity ? undefined : setTimeout(() => this.terminate(), timeoutMs)
    void deadline?.then(() => this.terminate())
    await this.exited
    clearTimeout(timer)
  }

  terminate(): void {
    void this.worker.terminate()
  }

  /** Whether its pool keeps its `min` connections. Resolves when it does as it was told, or the thread has ended. */
  async keep(connections: 'none' | 'min'): Promise<void> {
    if (this.hasEnded) return
    this.#kept = deferred()
    this.#say({ type: 'keep', connections })
    await this.#kept.promise
  }

  /** How its listeners are told. */
  answer(key: string, answer: ListenAnswer): void {
    this.#say({ type: 'listen', key, answer })
  }

  #say(message: ToServerThread): void {
    this.#port.postMessage(message)
  }

  #limitStart(): void {
    const { startTimeoutMs, data } = this.#options
    if (startTimeoutMs === Infinity) return
    this.#startTimer = setTimeout(() => {
      const error = new PoolError(
        'ERR_SERVER_START_TIMEOUT',
        `The server "${data.name}" (${data.index}) was not ready within ${startTimeoutMs} ms.`,
      )
      this.cause ??= error
      this.#ready.reject(error)
      this.terminate()
    }, startTimeoutMs)
  }

  #hear(message: FromServerThread): void {
    const { desk } = this.#options
    switch (message.type) {
      case 'ready':
        clearTimeout(this.#startTimer)
        return this.#ready.resolve()
      case 'failed':
        return void this.#failed(fromWire(message.error))
      case 'address':
        return this.#options.onAddress(message.address)
      case 'may listen':
        return desk.ask(this, message.key, message.port, message.host)
      case 'listens':
        return desk.listens(this, message.key, message.address)
      case 'listens not':
        return desk.listensNot(this, message.key, message.error)
      case 'keeps':
        return this.#kept?.resolve()
    }
  }

  async #failed(error: unknown): Promise<void> {
    this.cause = error
    this.#options.onFailed(error)
    this.#ready.reject(error)
    // What it had opened by then would keep its thread alive.
    const kill = setTimeout(() => this.terminate(), failedGraceMs)
    await this.exited
    clearTimeout(kill)
  }
}
