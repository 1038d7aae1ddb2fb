import { MessageChannel, Worker } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { WorkerLostError, messageOf } from '../errors.ts'
import type { FromServer, ServerThreadData, ToServer } from './thread.ts'
import { fromWire, toWire } from './wire.ts'
import type { Reply } from './wire.ts'

const entry = new URL('../../workers/server.js', import.meta.url)
const firstPauseMs = 100
const longestPauseMs = 5_000
/** A server that has lived so long is not one that keeps failing. */
const soundAfterMs = 10_000
/** How long a thread may take to end by itself after its server has failed to start. */
const failedGraceMs = 500

export interface ServerOptions {
  readonly name: string
  readonly index: number
  readonly data: Omit<ServerThreadData, 'port'>
  readonly run: (task: string, input: unknown, abort: Int32Array | undefined) => Promise<unknown>
}

/** One thread of a server's: from its start to its exit. */
interface Life {
  readonly worker: Worker
  readonly port: MessagePort
  readonly ready: Deferred<void>
  readonly exited: Promise<void>
  readonly startedAt: number
}

/**
 * One server on one thread, kept running.
 *
 * State
 *   new → starting   a thread begins its first life; `start()` waits for it
 *   ready            from now on a life that ends is followed by another one, after a pause that doubles while lives
 *                    are short
 *   stopping         the last life is to end; no other follows
 *   life             the current one; its thread may have ended
 */
export class ServerThread {
  readonly #options: ServerOptions
  #state: 'new' | 'starting' | 'ready' | 'stopping' = 'new'
  #life: Life | undefined
  #shortLives = 0
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
  async start(): Promise<void> {
    this.#state = 'starting'
    await this.#begin().ready.promise
    if (this.#state === 'starting') this.#state = 'ready'
  }

  /** Lets the server finish; ends its thread when the deadline comes. */
  async stop(deadline: Promise<void>): Promise<void> {
    this.#state = 'stopping'
    clearTimeout(this.#restart)
    const life = this.#life
    if (!life) return
    const stop: ToServer = { type: 'stop' }
    life.port.postMessage(stop)
    void deadline.then(() => life.worker.terminate())
    await life.exited
  }

  #begin(): Life {
    const { name, data } = this.#options
    const { port1: port, port2 } = new MessageChannel()
    const workerData: ServerThreadData = { ...data, port: port2 }
    const worker = new Worker(entry, { workerData, transferList: [port2], name: `${name} ${data.index}` })
    const ready = deferred<void>()
    // Nobody waits for the second life.
    ready.promise.catch((error: unknown) => this.#warn(`did not start: ${messageOf(error)}`))
    let cause: unknown
    worker.on('error', (error) => {
      cause = error
    })
    const exited = new Promise<void>((resolve) => {
      worker.once('exit', (code) => {
        port.close()
        ready.reject(new WorkerLostError(name, code, cause === undefined ? undefined : { cause }))
        resolve()
        this.#ended(life, cause)
      })
    })
    const life: Life = { worker, port, ready, exited, startedAt: performance.now() }
    this.#life = life
    port.on('message', (message: FromServer) => this.#hear(message, life))
    return life
  }

  #ended({ startedAt }: Life, cause: unknown): void {
    if (this.#state !== 'ready') return
    this.#warn(`ended${cause === undefined ? '' : ` (${messageOf(cause)})`}; it is started again`)
    this.#shortLives = performance.now() - startedAt > soundAfterMs ? 0 : this.#shortLives + 1
    const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.max(0, this.#shortLives - 1))
    this.#restart = setTimeout(() => void this.#begin(), pauseMs)
  }

  #hear(message: FromServer, life: Life): void {
    switch (message.type) {
      case 'ready':
        return life.ready.resolve()
      case 'failed': {
        const error = message.reply.ok ? undefined : fromWire(message.reply.error)
        if (this.#state === 'stopping') this.#warn(`did not stop as it should: ${messageOf(error)}`)
        life.ready.reject(error)
        // What it had opened by then would keep its thread alive.
        const kill = setTimeout(() => void life.worker.terminate(), failedGraceMs)
        void life.exited.then(() => clearTimeout(kill))
        return undefined
      }
      case 'address':
        this.address = message.address
        return undefined
      case 'run':
        return void this.#run(message, life.port)
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

  /** For what nobody waits to hear. */
  #warn(what: string): void {
    if (this.#state === 'starting') return
    process.emitWarning(`Server "${this.#options.name}" (${this.#options.index}) ${what}`, 'MillpondWarning')
  }
}
