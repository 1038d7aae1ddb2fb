import { MessageChannel, Worker, receiveMessageOnPort } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { PoolError, WorkerLostError } from '../errors.ts'
import type { ListenDesk } from './listen-desk.ts'
import type { FromServerThread, ListenAnswer, ServerData, ToServerThread } from './server-messages.ts'
import { fromWire } from './wire.ts'

const entry = new URL('../../workers/server.js', import.meta.url)
/** How long a thread may take to end by itself after its server has failed. */
const failedGraceMs = 500
/** How long one may take to hear that it is to stop that has heard nothing lately: its event loop is blocked. */
const silenceMs = 10_000

export interface LifeOptions {
  readonly data: Omit<ServerData, 'port'>
  readonly desk: ListenDesk
  readonly startTimeoutMs: number
  readonly onAddress: (address: unknown) => void
  /** The server's `start` has resolved; or it has failed, takes too long, or the thread has ended before. Either, once. */
  readonly onReady: () => void
  readonly onFailed: (error: unknown) => void
  /** Its pool keeps no connections any more. */
  readonly onKept: () => void
  /** What went wrong while it stopped. */
  readonly onStopFailed: (error: unknown) => void
  /** The thread has ended, and its sockets are closed. */
  readonly onExit: (exitCode: number) => void
}

/** One thread of a server's, from its start to its exit. */
export class Life {
  readonly startedAt: number = performance.now()
  readonly threadId: number
  readonly #worker: Worker
  readonly #exited: Promise<void>
  isStopping = false
  /** What its thread died of. */
  cause: unknown
  readonly #options: LifeOptions
  readonly #port: MessagePort
  #hasEnded = false
  /** Whether it is known what became of its `start`. */
  #isSettled = false
  /** How many orders about what it keeps it has not answered. */
  #unanswered = 0
  #startTimer: NodeJS.Timeout | undefined
  #stopTimer: NodeJS.Timeout | undefined
  #silenceTimer: NodeJS.Timeout | undefined
  #failedTimer: NodeJS.Timeout | undefined

  constructor(options: LifeOptions) {
    this.#options = options
    const { data, desk } = options
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.#worker = new Worker(entry, {
      workerData: { ...data, port: port2 } satisfies ServerData,
      transferList: [port2],
      name: `${data.name} ${data.index}`,
    })
    this.threadId = this.#worker.threadId
    this.#worker.on('error', (error) => {
      this.cause = error
    })
    this.#exited = new Promise<void>((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#hasEnded = true
        for (const timer of [this.#stopTimer, this.#silenceTimer, this.#failedTimer]) clearTimeout(timer)
        // Its last words may be still to come.
        for (let next = receiveMessageOnPort(port1); next; next = receiveMessageOnPort(port1)) {
          this.#hear(next.message as FromServerThread)
        }
        port1.close()
        desk.gone(this)
        const cause = this.cause === undefined ? undefined : { cause: this.cause }
        this.#settle({ error: new WorkerLostError(data.name, code, cause) })
        resolve()
        options.onExit(code)
      })
    })
    port1.on('message', (message: FromServerThread) => this.#hear(message))
    this.#limitStart()
  }

  /**
   * Lets the server finish within the time; its thread is ended when that is over, or the deadline comes. Of a second call
   * only the deadline counts.
   */
  async stop(timeoutMs: number, deadline?: Promise<void>): Promise<void> {
    if (this.#hasEnded) return
    void deadline?.then(() => this.#terminate())
    if (!this.isStopping) {
      this.isStopping = true
      clearTimeout(this.#startTimer)
      this.#say({ type: 'stop', timeoutMs })
      if (timeoutMs !== Infinity) this.#stopTimer = setTimeout(() => this.#terminate(), timeoutMs)
      if (this.#unanswered > 0) this.#silenceTimer = setTimeout(() => this.#terminate(), silenceMs)
    }
    await this.#exited
  }

  /** Whether its pool keeps its `min` connections. It answers when it has heard, so a silent one is blocked. */
  keep(connections: 'none' | 'min'): void {
    this.#unanswered++
    this.#say({ type: 'keep', connections })
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
      this.#settle({ error })
      this.#terminate()
    }, startTimeoutMs)
  }

  #terminate(): void {
    void this.#worker.terminate()
  }

  #settle(failure?: { readonly error: unknown }): void {
    clearTimeout(this.#startTimer)
    if (this.#isSettled) return
    this.#isSettled = true
    if (failure) this.#options.onFailed(failure.error)
    else this.#options.onReady()
  }

  #hear(message: FromServerThread): void {
    const { desk } = this.#options
    switch (message.type) {
      case 'ready':
        return this.#settle()
      case 'failed':
        return this.#failed(fromWire(message.error))
      case 'address':
        return this.#options.onAddress(message.address)
      case 'may listen':
        return desk.ask(this, message.key, message.port, message.host)
      case 'listens':
        return desk.listens(this, message.key, message.address)
      case 'listens not':
        return desk.listensNot(this, message.key, message.error)
      case 'keeps':
        if (--this.#unanswered === 0) clearTimeout(this.#silenceTimer)
        return message.connections === 'none' ? this.#options.onKept() : undefined
    }
  }

  #failed(error: unknown): void {
    this.cause = error
    if (this.isStopping) this.#options.onStopFailed(error)
    this.#settle({ error })
    // What it had opened by then would keep its thread alive.
    if (!this.#hasEnded) this.#failedTimer = setTimeout(() => this.#terminate(), failedGraceMs)
  }
}
