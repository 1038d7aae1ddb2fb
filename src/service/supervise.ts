import { messageOf } from '../errors.ts'
import { SeatMachine } from './seat-machine.ts'
import type { ServerState } from './seat-machine.ts'
import { Life } from './server-life.ts'
import type { LifeOptions } from './server-life.ts'
import { tell } from './server-events.ts'

export type { ServerState } from './seat-machine.ts'

export interface SeatOptions extends Pick<LifeOptions, 'desk' | 'startTimeoutMs'> {
  readonly data: Omit<LifeOptions['data'], 'isRestart'>
  readonly maxRestarts: number
  /** The time that a server gets to stop for another one. */
  readonly stopTimeoutMs: number
  /** Called whenever `state` has changed. */
  readonly onChange: () => void
}

/** The place of one thread of a server. What is to be done its machine says; here it is carried out and told. */
export class Seat {
  readonly #options: SeatOptions
  readonly #machine: SeatMachine<Life>
  /** What it said about where it listens. */
  address: unknown

  constructor(options: SeatOptions) {
    this.#options = options
    const machine = new SeatMachine<Life>(
      {
        now: () => performance.now(),
        after: (ms, callback) => {
          const timer = setTimeout(callback, ms)
          return () => clearTimeout(timer)
        },
        begin: () => this.#begin(),
        keep: (life, connections) => life.keep(connections),
        retire: (life) => void life.stop(options.stopTimeoutMs),
        changed: () => options.onChange(),
        replaced: (life, former) =>
          tell(this.#options.data, 'millpond:server-reload', { threadId: life.threadId, from: former?.threadId }),
        restarts: (why, pauseMs) => {
          this.#warn(`ended (${why}); it is started again`)
          tell(this.#options.data, 'millpond:server-restart', { pauseMs, restarts: this.restarts })
        },
        givenUp: (why, times, cause) => {
          this.#warn(`ended ${times} times within a minute (${why}); it is not started again`)
          tell(this.#options.data, 'millpond:server-failed', { restarts: this.restarts, cause })
        },
      },
      options.maxRestarts,
    )
    this.#machine = machine
  }

  get name(): string {
    return this.#options.data.name
  }

  get index(): number {
    return this.#options.data.index
  }

  get state(): ServerState {
    return this.#machine.state
  }

  /** How often it was started again since its beginning. */
  get restarts(): number {
    return this.#machine.restarts
  }

  /** That of the current life. */
  get threadId(): number | undefined {
    return this.#machine.current?.threadId
  }

  get aliveMs(): number {
    const { current } = this.#machine
    return current ? performance.now() - current.startedAt : 0
  }

  /** Resolves when the server's `start` has; rejects with what it threw, or `WorkerLostError`. */
  start(): Promise<void> {
    return settled((done) => this.#machine.start(done))
  }

  /**
   * Begins another life and ends the current one when the other is ready. Rejects with the reason if it does not get
   * ready; the current one goes on then.
   */
  reload(): Promise<void> {
    return settled((done) => this.#machine.reload(done))
  }

  /** Lets the server finish; ends its threads when the deadline comes. */
  async stop(timeoutMs: number, deadline: Promise<void>): Promise<void> {
    await Promise.all(this.#machine.stop().map((life) => life.stop(timeoutMs, deadline)))
  }

  #begin(): Life {
    const { data, desk, startTimeoutMs } = this.#options
    const life: Life = new Life({
      data: { ...data, isRestart: this.state === 'restarting' },
      desk,
      startTimeoutMs,
      onAddress: (address) => {
        this.address = address
      },
      onReady: () => {
        const durationMs = performance.now() - life.startedAt
        tell(this.#options.data, 'millpond:server-ready', { threadId: life.threadId, durationMs })
        this.#machine.ready(life)
      },
      onFailed: (error) => this.#machine.failed(life, error),
      onKept: () => this.#machine.kept(life),
      onStopFailed: (error) => this.#warn(`did not stop as it should: ${messageOf(error)}`),
      onExit: (exitCode) => this.#ended(life, exitCode),
    })
    tell(this.#options.data, 'millpond:server-start', { threadId: life.threadId })
    return life
  }

  #ended(life: Life, exitCode: number): void {
    const { threadId, isStopping: expected, startedAt, cause } = life
    const livedMs = performance.now() - startedAt
    tell(this.#options.data, 'millpond:server-exit', { threadId, expected, livedMs, cause })
    this.#machine.ended(life, { why: cause === undefined ? `exit code ${exitCode}` : messageOf(cause), cause })
  }

  /** For what nobody waits to hear. */
  #warn(what: string): void {
    process.emitWarning(`Server "${this.name}" (${this.index}) ${what}`, 'MillpondWarning')
  }
}

function settled(act: (done: (failure?: { readonly error: unknown }) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => act((failure) => (failure ? reject(failure.error) : resolve())))
}
