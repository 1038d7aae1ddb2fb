import { optionTypeError } from '../errors.ts'
import { ListenDesk } from './listen-desk.ts'
import type { ServerOptions } from './options.ts'
import { Seat } from './supervise.ts'
import type { ThreadData } from './thread.ts'

export interface ServersOptions {
  readonly servers: Readonly<Record<string, ServerOptions>>
  readonly shared: ThreadData
  readonly status: Int32Array
  readonly instrument: string | undefined
  readonly hasTasks: boolean
  readonly stopTimeoutMs: number
  /** Called whenever one of them has become ready, or is no more. */
  readonly onChange: () => void
}

/** All servers of a service, each on as many threads as it is to have. */
export class Servers {
  readonly #seats: Seat[] = []
  readonly #reloads = new Map<string, Promise<void>>()

  constructor({ servers, shared, status, instrument, hasTasks, stopTimeoutMs, onChange }: ServersOptions) {
    for (const [name, server] of Object.entries(servers)) {
      const { module, workers = 1, data, startTimeoutMs = 30_000, maxRestarts = 10 } = server
      const desk = new ListenDesk({
        workers,
        warn: (text) => process.emitWarning(`Server "${name}" ${text}`, 'MillpondWarning'),
      })
      for (let index = 0; index < workers; index++) {
        this.#seats.push(
          new Seat({
            data: { ...shared, module: module.href, name, index, data, status, instrument, hasTasks },
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

  get seats(): readonly Seat[] {
    return this.#seats
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
    const names = [...new Set(this.#seats.map((seat) => seat.name))].filter((one) => name === undefined || one === name)
    if (name !== undefined && names.length === 0) throw optionTypeError('name', `There is no server "${name}".`)
    await Promise.all(names.map((one) => this.#reload(one)))
  }

  addresses(name: string): readonly unknown[] {
    return this.#seats.filter((seat) => seat.name === name).map((seat) => seat.address)
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
