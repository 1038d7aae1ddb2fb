import type { IncomingMessage, ServerResponse } from 'node:http'
import { Server } from 'node:net'
import type { Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'

/**
 * How long a connection without a request stays open once the server is to stop: a client that keeps it alive may be
 * sending the next request just now. It is answered, and told that it was the last one.
 */
const lingerMs = 200
const lookMs = 20

interface HttpServer extends Server {
  closeIdleConnections(): void
}

/** Follows what one server has accepted, so that it can stop without dropping any of it. */
export class Drain {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  readonly #responses = new Set<ServerResponse>()
  #stopped: Promise<void> | undefined

  constructor(server: Server) {
    this.#server = server
    // With TLS there are two sockets of one connection; before the handshake only the first.
    for (const event of ['connection', 'secureConnection']) server.on(event, this.#onSocket)
    if (isHttp(server)) server.prependListener('request', this.#onRequest)
  }

  /** Accepts nothing more, answers what there is; cuts off what is left at the deadline. Never rejects. */
  stop(timeoutMs: number, notListening: () => void): Promise<void> {
    this.#stopped ??= this.#stop(timeoutMs, notListening)
    return this.#stopped
  }

  async #stop(timeoutMs: number, notListening: () => void): Promise<void> {
    const server = this.#server
    for (const response of this.#responses) last(response)
    // What has connected by now is accepted in this turn of the loop; closing would refuse it.
    await setImmediate()
    const closed = new Promise<void>((resolve) => {
      // Not the close() of HTTP servers: it cuts idle connections off at once. An error means: it was closed before.
      Server.prototype.close.call(server, () => resolve())
    })
    notListening()
    const startedAt = performance.now()
    const look = setInterval(() => {
      const passedMs = performance.now() - startedAt
      if (passedMs >= timeoutMs) for (const socket of this.#sockets) socket.destroy()
      else if (passedMs >= Math.min(lingerMs, timeoutMs / 2) && isHttp(server)) server.closeIdleConnections()
    }, lookMs)
    await closed
    clearInterval(look)
  }

  readonly #onSocket = (socket: Socket): void => {
    this.#sockets.add(socket)
    socket.once('close', () => this.#sockets.delete(socket))
  }

  readonly #onRequest = (_request: IncomingMessage, response: ServerResponse): void => {
    if (this.#stopped) last(response)
    this.#responses.add(response)
    response.once('close', () => this.#responses.delete(response))
  }
}

/** The client is not to send another request on this connection. */
function last(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader('Connection', 'close')
}

function isHttp(server: Server): server is HttpServer {
  return 'closeIdleConnections' in server
}
