import { MessageChannel, Worker } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { WorkerLostError } from '../errors.ts'
import type { FromServer, ServerThreadData, ToServer } from './thread.ts'
import { fromWire, toWire } from './wire.ts'
import type { Reply } from './wire.ts'

const entry = new URL('../../workers/server.js', import.meta.url)
const firstPauseMs = 100
const longestPauseMs = 5_000

export interface ServerOptions {
  readonly name: string
  readonly index: number
  readonly data: Omit<ServerThreadData, 'port'>
  readonly run: (task: string, input: unknown, abort: Int32Array | undefined) => Promise<unknown>
}

/**
 * One server on one thread, kept running: starting → ready → stopping → ended. A thread that ends before it was told
 * to is started again, after a pause that doubles while it keeps ending.
 */
export class ServerThread {
  readonly #options: ServerOptions
  #worker: Worker | undefined
  #port: MessagePort | undefined
  #ready: Deferred<void> = deferred()
  #exited: Promise<void> = Promise.resolve()
  #stopping = false
  #failures = 0
  #restart: NodeJS.Timeout | undefined
  /** What it said about where it listens. */
  address: unknown

  constructor(options: ServerOptions) {
    this.#options = options
  }

  get name(): string {
    return this.#options.name
  }

  /** Resolves when the server's `start` has; rejects with what it threw, or `WorkerLostError`. */
  start(): Promise<void> {
    const { name, data } = this.#options
    const { port1, port2 } = new MessageChannel()
    this.#ready = deferred<void>()
    const ready = this.#ready
    const workerData: ServerThreadData = { ...data, port: port2 }
    const worker = new Worker(entry, { workerData, transferList: [port2], name: `${name} ${data.index}` })
    this.#worker = worker
    this.#port = port1
    port1.on('message', (message: FromServer) => this.#hear(message, port1))
    let cause: unknown
    worker.on('error', (error) => {
      cause = error
    })
    this.#exited = new Promise((resolve) => {
      worker.once('exit', (code) => {
        port1.close()
        ready.reject(new WorkerLostError(name, code, cause === undefined ? undefined : { cause }))
        resolve()
      })
    })
    return ready.promise
  }

  /** From now on: start it again whenever it ends by itself. */
  supervise(): void {
    const { name, index } = this.#options
    void this.#exited.then(() => {
      if (this.#stopping) return
      process.emitWarning(`The thread of server "${name}" (${index}) ended; it is started again.`)
      const pause = Math.min(longestPauseMs, firstPauseMs * 2 ** this.#failures++)
      this.#restart = setTimeout(() => {
        this.start().then(
          () => (this.#failures = 0),
          (error: unknown) => process.emitWarning(`Server "${name}" (${index}) did not start: ${String(error)}`),
        )
        this.supervise()
      }, pause)
    })
  }

  /** Lets the server finish; ends its thread after `timeoutMs`. */
  async stop(timeoutMs: number): Promise<void> {
    this.#stopping = true
    clearTimeout(this.#restart)
    const stop: ToServer = { type: 'stop' }
    this.#port?.postMessage(stop)
    const kill = setTimeout(() => void this.#worker?.terminate(), timeoutMs)
    await this.#exited
    clearTimeout(kill)
  }

  #hear(message: FromServer, port: MessagePort): void {
    switch (message.type) {
      case 'ready':
        return this.#ready.resolve()
      case 'failed':
        return this.#ready.reject(message.reply.ok ? undefined : fromWire(message.reply.error))
      case 'address':
        this.address = message.address
        return undefined
      case 'run':
        return void this.#run(message, port)
    }
  }

  async #run({ id, task, input, abort }: Extract<FromServer, { type: 'run' }>, port: MessagePort): Promise<void> {
    const reply: Reply = await this.#options.run(task, input, abort).then(
      (value) => ({ ok: true, value }),
      (error: unknown) => ({ ok: false, error: toWire(error) }),
    )
    const message: ToServer = { type: 'reply', id, reply }
    port.postMessage(message)
  }
}
