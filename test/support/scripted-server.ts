import type { Socket } from 'node:net'
import { tcpServer } from './connection.ts'

/** One message of a server: a letter, its length, what is in it. */
export function message(type: string, payload: Buffer | string = ''): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'latin1') : payload
  const head = Buffer.alloc(5)
  head.write(type, 'latin1')
  head.writeUInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

/** A message about authentication. */
export function authentication(method: number, details: Buffer | string = ''): Buffer {
  const code = Buffer.alloc(4)
  code.writeUInt32BE(method)
  return message('R', Buffer.concat([code, Buffer.from(details as string, 'latin1')]))
}

/** An error that ends the session. */
export function fatal(code: string, text: string): Buffer {
  return message('E', `SFATAL\0VFATAL\0C${code}\0M${text}\0\0`)
}

export const offer: Buffer = authentication(10, 'SCRAM-SHA-256\0\0')
export const challenge: Buffer = authentication(11, 'r=nonce,s=c2FsdA==,i=4096')
export const keyAndReady: Buffer = Buffer.concat([message('K', Buffer.alloc(8, 1)), message('Z', 'I')])
export const authenticated: Buffer = authentication(0)

/** A word of the script: what to say, or what to do with the socket. */
export type Line = Buffer | ((socket: Socket) => void)

/**
 * A server that answers each thing it hears with the next line of its script, and falls silent at the end of it. It
 * ends its side when the client does, as a server would.
 */
export async function scriptedServer(
  ...script: readonly Line[]
): Promise<{ port: number; readonly sockets: number } & AsyncDisposable> {
  let sockets = 0
  const server = await tcpServer((socket) => {
    sockets++
    let next = 0
    socket.on('data', () => {
      const line = script[next++]
      if (typeof line === 'function') line(socket)
      else if (line) socket.write(line)
    })
    socket.on('end', () => socket.end())
  })
  return {
    port: server.port,
    get sockets() {
      return sockets
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}
