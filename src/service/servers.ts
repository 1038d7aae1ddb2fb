import { optionTypeError } from '../errors.ts'
import { ListenDesk } from './listen-desk.ts'
import type { ServerOptions } from './options.ts'
import { Seat } from './supervise.ts'
import type { ServerState } from './supervise.ts'
import type { ThreadData } from './thread.ts'

export interface ServersOptions {
  readonly servers: Readonly<Record<string, ServerOptions>>
  readonly shared: ThreadData
  readonly status: Int32Array
  readonly hasTasks: boolean
  readonly stopTimeoutMs: number
  /** Called whenever one of them has become ready, or is no more. */
  readonly onChange: () => void
}

/** How a server is doing. */
export interface ServerStats {
  /** Threads that it is to have, and that are ready. */
  readonly wanted: number
  readonly ready: number
  /** Since the service has started, of all its threads. */
  readonly restarts: number
  readonly threads: readonly ServerThreadStats[]
}

export interface ServerThreadStats {
  readonly index: number
  readonly state: ServerState
  /** Undefined while there is none. */
  readonly threadId: number | undefined
  readonly restarts: number
  readonly aliveMs: number
  readonly address: unknown
}

/** All servers of a service, each on as many threads as it is to have. */
export class Servers {
  readonly #seats: Seat[] = []
  readonly #reloads = new Map<string, Promise<void>>()

  constructor({ servers, shared, status, hasTasks, stopTimeoutMs, onChange }: ServersOptions) {
    for (const [name, server] of Object.entries(servers)) {
      const { module, workers = 1, data, startTimeoutMs = 30_000, maxRestarts = 10 } = server
      const desk = new ListenDesk({
        workers,
        warn: (text) => process.emitWarning(`Server "${name}" ${text}`, 'MillpondWarning'),
      })
      for (let index = 0; index < workers; index++) {
        this.#seats.push(
          new Seat({
            data: { ...shared, module: module.href, name, index, data, status, hasTasks },
            desk,
            startTimeoutMs,
            maxRestarts,
            stopTimeoutMs,
            onChange,
          }),
        )
      }
    }
  }

  /** Resolves when all of them are ready. */
  async start(): Promise<void> {
    await Promise.all(this.#seats.map((seat) => seat.start()))
  }

  /** Whether every server has a thread that is ready, and none has been given up. */
  isReady(): boolean {
    const ready = new Set(this.#seats.filter(({ state }) => state === 'ready').map(({ name }) => name))
    return this.#seats.every(({ name, state }) => ready.has(name) && state !== 'failed')
  }

  /** Replaces the threads of a server, or of all, one after the other. */
  async reload(name?: string): Promise<void> {
    const all = [...new Set(this.#seats.map((seat) => seat.name))]
    if (name !== undefined && !all.includes(name)) {
      throw optionTypeError(
        'name',
        `There is no server "${name}": there ${all.length > 0 ? `are ${all.join(', ')}` : 'is none'}.`,
      )
    }
    const names = name === undefined ? all : [name]
    await Promise.all(names.map((one) => this.#reload(one)))
  }

  addresses(name: string): readonly unknown[] {
    return this.#seats.filter((seat) => seat.name === name).map((seat) => seat.address)
  }

  stats(): Readonly<Record<string, ServerStats>> {
    const all: Record<string, ServerStats> = {}
    for (const name of new Set(this.#seats.map((seat) => seat.name))) {
      const threads = this.#seats
        .filter((seat) => seat.name === name)
        .map(({ index, state, threadId, restarts, aliveMs, address }) => {
          return { index, state, threadId, restarts, aliveMs, address }
        })
      const ready = threads.filter(({ state }) => state === 'ready').length
      const restarts = threads.reduce((sum, thread) => sum + thread.restarts, 0)
      all[name] = { wanted: threads.length, ready, restarts, threads }
    }
    return all
  }

  async stop(timeoutMs: number, deadline: Promise<void>): Promise<void> {
    await Promise.all(this.#seats.map((seat) => seat.stop(timeoutMs, deadline)))
  }

  /** Two at a time would be one and the same. */
  #reload(name: string): Promise<void> {
    const running = this.#reloads.get(name)
    if (running) return running
    const reload = this.#oneByOne(this.#seats.filter((seat) => seat.name === name)).finally(() =>
      this.#reloads.delete(name),
    )
    this.#reloads.set(name, reload)
    return reload
  }

  async #oneByOne(seats: readonly Seat[]): Promise<void> {
    for (const seat of seats) await seat.reload()
  }
}
