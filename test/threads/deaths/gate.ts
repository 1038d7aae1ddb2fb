import { connect, createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'

type Side = 'client' | 'server'

/** What is held back: from the first chunk on that fits, on each connection. */
export interface Held {
  readonly from: Side
  readonly fits: (chunk: Buffer) => boolean
}

interface State {
  rule: Held | undefined
  held: number
}

/**
 * A proxy in front of the server that can keep things in a state that passes at once otherwise. A connection of which
 * something is held back says nothing more to either side, and passes on no end of the client; the server's end ends it.
 */
export class Gate implements AsyncDisposable {
  readonly url: string
  readonly #server: Server
  readonly #sockets: ReadonlySet<Socket>
  readonly #state: State

  private constructor(url: string, server: Server, sockets: ReadonlySet<Socket>, state: State) {
    this.url = url
    this.#server = server
    this.#sockets = sockets
    this.#state = state
  }

  static async open(url: string): Promise<Gate> {
    const target = new URL(url)
    const sockets = new Set<Socket>()
    const state: State = { rule: undefined, held: 0 }
    // Half-open: an end that it made up itself would look like the server's.
    const server = createServer({ allowHalfOpen: true }, (client) => {
      const { port, hostname } = target
      pass(client, connect({ port: Number(port), host: hostname, allowHalfOpen: true }), sockets, state)
    })
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve)
    })
    const through = new URL(url)
    through.port = String((server.address() as AddressInfo).port)
    return new Gate(through.href, server, sockets, state)
  }

  /** Connections of which something is held back. */
  get held(): number {
    return this.#state.held
  }

  hold(rule: Held): void {
    this.#state.rule = rule
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => {
      this.#server.close(resolve)
    })
  }
}

function pass(client: Socket, server: Socket, sockets: Set<Socket>, state: State): void {
  let holds = false
  const join = (from: Side, source: Socket, target: Socket): void => {
    sockets.add(source)
    source.on('error', () => undefined)
    source.on('data', (chunk: Buffer) => {
      const { rule } = state
      if (!holds && rule?.from === from && rule.fits(chunk)) {
        holds = true
        state.held++
      }
      if (!holds) target.write(chunk)
    })
    source.on('end', () => {
      if (from === 'server' || !holds) target.end()
    })
    source.on('close', () => {
      sockets.delete(source)
      if (from === 'server' || !holds) target.destroy()
    })
  }
  join('client', client, server)
  join('server', server, client)
}
