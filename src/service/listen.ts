import { Server } from 'node:net'
import type { AddressInfo } from 'node:net'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { PoolError, optionTypeError } from '../errors.ts'
import { flag, onlyKnown, shown, whole } from '../options.ts'
import { Drain } from './listen-drain.ts'
import { canSharePort } from './listen-share.ts'
import type { FromServerThread, ListenAnswer } from './server-messages.ts'
import { fromWire, toWire } from './wire.ts'

/** Anything that listens as servers of `node:http` do: those, and the apps of Fastify, Express or Koa. */
export interface Listenable {
  // oxlint-disable-next-line no-explicit-any -- every framework has parameters of its own
  listen(...args: any[]): unknown
}

export interface ListenOptions {
  /**
   * 0: any that is free, the same one for all threads of the server.
   * @default 0
   */
  port?: number
  /**
   * An address of this machine.
   * @default the server's own: all of them for Node's servers, localhost for Fastify
   */
  host?: string
  /**
   * Whether it is an error (`ERR_REUSE_PORT`) if threads cannot share a port here, instead of one thread that listens
   * and others that stand by. They can from Node 22.12 on, on Linux.
   * @default false
   */
  requireReusePort?: boolean
}

type Port = Extract<ListenAnswer, { how: 'listen' }>

interface Place {
  readonly app: Listenable
  readonly host: string | undefined
  readonly bound: Deferred<AddressInfo>
  drain: Drain | undefined
  /** Its `listen` has been answered, by the address of another thread. */
  standsBy: boolean
}

interface Wanted {
  readonly port: number
  readonly host: string | undefined
  readonly requireReusePort: boolean
}

/** Where one server thread listens, or stands by. The service's thread says which of the two. */
export class Listeners {
  readonly #places = new Map<string, Place>()
  readonly #say: (message: FromServerThread) => void
  #stopping = false

  constructor(say: (message: FromServerThread) => void) {
    this.#say = say
  }

  readonly listen = async (app: Listenable, options: ListenOptions = {}): Promise<AddressInfo> => {
    const { port, host, requireReusePort } = checked(app, options)
    if (this.#stopping) throw new PoolError('ERR_SERVICE_CLOSED', 'Cannot listen: the server is to stop.')
    if (requireReusePort && !canSharePort()) {
      throw new PoolError(
        'ERR_REUSE_PORT',
        `Cannot share a port between threads with Node ${process.versions.node} on ${process.platform}: it takes 22.12 or newer, and Linux.`,
      )
    }
    // The threads of one server run the same code: the second call of one is the second call of all.
    const key = `${this.#places.size} ${host ?? ''}:${port}`
    const place: Place = { app, host, bound: deferred(), drain: undefined, standsBy: false }
    this.#places.set(key, place)
    this.#say({ type: 'may listen', key, port, host })
    return place.bound.promise
  }

  /** What `listen` was waiting for; or that it is this thread's turn now. */
  hear(key: string, answer: ListenAnswer): void {
    const place = this.#places.get(key)
    if (!place) return
    if (answer.how === 'listen') void this.#bind(key, place, answer)
    else if (answer.how === 'stand by') {
      place.standsBy = true
      place.bound.resolve(answer.address as AddressInfo)
    } else place.bound.reject(fromWire(answer.error))
  }

  /** Accepts nothing more and answers what there is; cuts off what is left at the deadline. */
  async stop(timeoutMs: number): Promise<void> {
    this.#stopping = true
    await Promise.all([...this.#places].map(([key, place]) => this.#drain(key, place, timeoutMs)))
  }

  async #drain(key: string, { drain }: Place, timeoutMs: number): Promise<void> {
    await drain?.stop(timeoutMs, () => this.#say({ type: 'listens not', key, error: undefined }))
  }

  async #bind(key: string, place: Place, how: Port): Promise<void> {
    try {
      if (this.#stopping) throw new PoolError('ERR_SERVICE_CLOSED', 'Cannot listen: the server is to stop.')
      const server = await open(place, how)
      server.once('close', () => this.#say({ type: 'listens not', key, error: undefined }))
      const address = server.address() as AddressInfo
      this.#say({ type: 'listens', key, address })
      place.bound.resolve(address)
      if (this.#stopping) void place.drain?.stop(0, () => {})
    } catch (error) {
      this.#say({ type: 'listens not', key, error: toWire(error) })
      place.bound.reject(error)
      // Nobody waits to hear it. The thread ends of it, and another one takes its place.
      if (place.standsBy && !this.#stopping) queueMicrotask(() => fail(error))
    }
  }
}

function fail(error: unknown): never {
  throw error
}

/** Lets an app listen; returns the server that does. */
async function open(place: Place, { port, reusePort }: Port): Promise<Server> {
  const { app, host } = place
  const options = { port, ...(host === undefined ? undefined : { host }), ...(reusePort ? { reusePort } : undefined) }
  if (app instanceof Server) {
    place.drain = new Drain(app)
    await listening(app, () => app.listen(options))
    return app
  }
  // Express and Koa return the server that they make, Fastify an address of the one that it has.
  const own = serverOf(app)
  if (own) place.drain = new Drain(own)
  const returned = app.listen(options)
  if (returned instanceof Server) {
    if (returned !== own) place.drain = new Drain(returned)
    await listening(returned)
    return returned
  }
  await returned
  const server = own ?? serverOf(app)
  if (server?.listening !== true) {
    throw optionTypeError('server', 'listen() cannot tell on which server this app listens: give it the server itself.')
  }
  place.drain ??= new Drain(server)
  return server
}

function listening(server: Server, begin?: () => void): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    if (server.listening) return resolve()
    server.once('listening', () => {
      server.off('error', reject)
      resolve()
    })
    server.once('error', reject)
    begin?.()
  })
}

function serverOf(app: Listenable): Server | undefined {
  const server = (app as { server?: unknown }).server
  return server instanceof Server ? server : undefined
}

const optionNames = ['port', 'host', 'requireReusePort']

function checked(app: unknown, options: unknown): Wanted {
  if (typeof (app as Partial<Listenable> | null | undefined)?.listen !== 'function') {
    throw optionTypeError(
      'server',
      `listen() takes a server of node:http, or an app that has a listen() itself: got ${shown(app)}.`,
    )
  }
  if (typeof options !== 'object' || options === null) {
    throw optionTypeError(
      'options',
      `listen() takes its options as an object, as in { port: 8080 }: got ${shown(options)}.`,
    )
  }
  onlyKnown(options, optionNames, 'listen()')
  const { port = 0, host, requireReusePort } = options as Record<keyof ListenOptions, unknown>
  if (host !== undefined && typeof host !== 'string') {
    throw optionTypeError('host', `host must be a string: got ${shown(host)}.`)
  }
  return {
    port: whole('port', port, { from: 0, to: 65_535 }),
    host,
    requireReusePort: flag('requireReusePort', requireReusePort),
  }
}
