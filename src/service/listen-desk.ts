import { createServer } from 'node:net'
import { once } from 'node:events'
import { canSharePort } from './listen-share.ts'
import type { ListenAnswer } from './server-messages.ts'
import { toWire } from './wire.ts'
import type { Wire } from './wire.ts'

/** A thread that asks where to listen. */
export interface Asker {
  readonly answer: (key: string, answer: ListenAnswer) => void
}

/**
 * One port of a server.
 *
 *   first      the thread that is about to listen before all others: they wait for what becomes of it
 *   holders    threads that listen; where ports cannot be shared one at the most
 *   others     threads that wait for the first, or stand by
 */
interface Port {
  /** What was asked for; once it is known, the real one. */
  port: number
  readonly host: string | undefined
  address: unknown
  first: Asker | undefined
  readonly holders: Set<Asker>
  readonly others: Set<Asker>
}

/** Tells the threads of one server who listens on which port. */
export class ListenDesk {
  readonly #ports = new Map<string, Port>()
  readonly #shares: boolean
  readonly #several: boolean
  readonly #warn: (text: string) => void
  #warned = false

  constructor(options: { workers: number; warn: (text: string) => void; shares?: boolean }) {
    this.#shares = options.shares ?? canSharePort()
    this.#several = options.workers > 1
    this.#warn = options.warn
  }

  ask(asker: Asker, key: string, port: number, host: string | undefined): void {
    let place = this.#ports.get(key)
    if (!place) {
      place = { port, host, address: undefined, first: undefined, holders: new Set(), others: new Set() }
      this.#ports.set(key, place)
    }
    if (!this.#shares && this.#several && !this.#warned) {
      this.#warned = true
      this.#warn(
        `cannot share a port between its threads with Node ${process.versions.node} on ${process.platform} (22.12 or newer on Linux can): one of them listens, the others stand by`,
      )
    }
    if (this.#shares && place.holders.size > 0) return this.#let(asker, key, place)
    place.others.add(asker)
    if (place.holders.size > 0) asker.answer(key, { how: 'stand by', address: place.address })
    else void this.#choose(key, place)
  }

  listens(asker: Asker, key: string, address: unknown): void {
    const place = this.#ports.get(key)
    if (!place) return
    if (place.first === asker) place.first = undefined
    place.holders.add(asker)
    place.address = address
    const { port } = (address ?? {}) as { port?: unknown }
    if (typeof port === 'number') place.port = port
    for (const other of place.others) {
      if (this.#shares) this.#let(other, key, place)
      else other.answer(key, { how: 'stand by', address })
    }
    if (this.#shares) place.others.clear()
  }

  /** A thread does not listen on one port, or no more; it is not asked to either. */
  listensNot(asker: Asker, key: string, error?: Wire): void {
    const place = this.#ports.get(key)
    if (!place) return
    place.holders.delete(asker)
    place.others.delete(asker)
    if (place.first === asker) {
      place.first = undefined
      // A port of chance that somebody else has taken meanwhile: another one will do.
      if (error && place.address !== undefined) place.port = portOf(key)
    }
    void this.#choose(key, place)
  }

  /** A thread has ended. */
  gone(asker: Asker): void {
    for (const key of this.#ports.keys()) this.listensNot(asker, key)
  }

  async #choose(key: string, place: Port): Promise<void> {
    const [next] = place.others
    if (!next || place.first || place.holders.size > 0) return
    place.first = next
    place.others.delete(next)
    if (this.#shares && place.port !== 0 && place.address === undefined) {
      // Who shares a port is not told that others have it already; another process would take half of the requests.
      const error = await taken(place.port, place.host)
      if (place.first !== next) return
      if (error) {
        place.first = undefined
        next.answer(key, { how: 'fail', error: toWire(error) })
        return this.#choose(key, place)
      }
    }
    this.#let(next, key, place)
  }

  #let(asker: Asker, key: string, { port }: Port): void {
    asker.answer(key, { how: 'listen', port, reusePort: this.#shares })
  }
}

function portOf(key: string): number {
  return Number(key.slice(key.lastIndexOf(':') + 1))
}

/** What one gets who listens there alone. */
async function taken(port: number, host: string | undefined): Promise<unknown> {
  const server = createServer()
  try {
    server.listen({ port, ...(host === undefined ? undefined : { host }) })
    await once(server, 'listening')
    return undefined
  } catch (error) {
    return error
  } finally {
    server.close()
  }
}
