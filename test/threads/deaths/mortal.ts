import { MessageChannel, Worker } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { until } from '../../support/database.ts'
import { ask } from '../ask.ts'

/** Ways to die by oneself, in the order that the fixture knows. */
const ownWays = ['throw', 'rejection', 'exit', 'memory'] as const
export type OwnWay = (typeof ownWays)[number]
/** Ways in which it blocks, until it is terminated. */
export type Block = 'loop' | 'wait'

/** The words of `fixtures/mortal.mjs`. */
const word = { blocked: 0, go: 1, gone: 2 } as const

interface MortalOptions {
  readonly url: string
  /** The server, where `url` is on the way to it. */
  readonly direct: string
  readonly pool: object
  /** Started by a thread of its own, which uses the pool as well or has never loaded it. */
  readonly nest?: 'bare' | 'owning' | undefined
  /** Its heap may be small: it is going to fill it. */
  readonly small?: boolean
}

/** A thread that is brought somewhere, in order to die there. */
export class Mortal implements AsyncDisposable {
  /** The thread itself, or the one above it. */
  readonly worker: Worker
  readonly #control: MessagePort
  readonly #words = new Int32Array(new SharedArrayBuffer(12))
  readonly #exit: Promise<number>

  constructor({ url, direct, pool, nest, small }: MortalOptions) {
    const { port1, port2 } = new MessageChannel()
    this.#control = port1
    this.#control.setMaxListeners(100)
    this.worker = new Worker(new URL('../fixtures/mortal.mjs', import.meta.url), {
      workerData: { url, direct, pool, nest, words: this.#words, control: port2 },
      transferList: [port2],
      // What Node has to say about a full heap is no news.
      stdout: true,
      stderr: true,
      ...(small ? { resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 8 } } : {}),
    })
    this.worker.on('error', () => undefined)
    // The end of the inner thread comes first, if the outer one lives to tell.
    this.#exit = new Promise((resolve) => {
      for (const event of ['message', 'exit']) this.worker.once(event, () => resolve(performance.now()))
    })
  }

  /** Resolves when the order has been carried out, rejects with what it threw there. */
  async tell(order: string, argument?: unknown): Promise<void> {
    await ask(this.#control, order, argument)
  }

  /** Blocks its event loop until its end. */
  async block(how: Block): Promise<void> {
    this.#control.postMessage({ order: 'block', argument: how })
    await until(() => this.isBlocked, 'a thread that blocks')
  }

  /** Has it die by itself. */
  die(how: OwnWay): void {
    if (this.isBlocked) {
      Atomics.store(this.#words, word.go, ownWays.indexOf(how) + 1)
      Atomics.notify(this.#words, word.go)
    } else this.#control.postMessage({ order: 'die', argument: how })
  }

  /** Its event loop stands still. */
  get isBlocked(): boolean {
    return Atomics.load(this.#words, word.blocked) === 1
  }

  /** When this thread heard of its end. */
  get exit(): Promise<number> {
    return this.#exit
  }

  /**
   * Has it use its pool for the first time, and die at once: by itself, or terminated. This thread, which is the
   * broker's, does nothing else from before it asked to be enrolled until after its end is certain.
   */
  enrolAndDie(how: OwnWay | Block | 'terminate'): void {
    this.#control.postMessage({ order: 'enrol', argument: how })
    if (Atomics.wait(this.#words, word.blocked, 0, 5_000) === 'timed-out') throw new Error('It never enrolled')
    if (how === 'loop' || how === 'wait' || how === 'terminate') void this.worker.terminate()
    else Atomics.wait(this.#words, word.gone, 0, 1_000)
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.#control.close()
    await this.worker.terminate()
  }
}
