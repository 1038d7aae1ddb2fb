import { isIP } from 'node:net'
import type { Socket } from 'node:net'
import { connect } from 'node:tls'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { messageOf } from '../errors.ts'

/** How a stream is secured. */
export interface TlsPolicy {
  /** Whether a server without TLS is taken as it is. */
  readonly optional: boolean
  /** TLS from the first byte on, without asking in PostgreSQL's protocol first. */
  readonly direct: boolean
  /** What Node is told: whom to trust, own certificates, versions. */
  readonly options: ConnectionOptions
}

/** A stream could not be secured. `final`: trying again cannot help. */
export class TlsError extends Error {
  override readonly name = 'TlsError'
  readonly final: boolean

  constructor(message: string, { final = false, cause }: { final?: boolean; cause?: unknown } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.final = final
  }
}

const sslRequest = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
const yes = 0x53
const no = 0x4e
const failure = 0x45

/** What a server must choose that is asked for TLS directly. */
const protocol = 'postgresql'

/**
 * Secures a stream that has just been connected to `host`. Rejects with a `TlsError`, or with `signal.reason`; then the
 * socket is destroyed.
 */
export async function secure(socket: Socket, host: string, tls: TlsPolicy, signal: AbortSignal): Promise<Socket> {
  try {
    if (!tls.direct && !(await accepts(socket, tls.optional, signal))) return socket
    return await shakeHands(socket, host, tls, signal)
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/** Asks for TLS. False: the server has none, and goes on without. */
async function accepts(socket: Socket, optional: boolean, signal: AbortSignal): Promise<boolean> {
  const answer = await firstChunk(socket, signal)
  // What an attacker in between puts behind the answer would be taken for the server's, once TLS is on.
  if (answer.length > 1 && (answer[0] === yes || answer[0] === no)) {
    throw new TlsError('the server sent more than it was asked for before TLS', { final: true })
  }
  if (answer[0] === yes) return true
  if (answer[0] === no && optional) return false
  if (answer[0] === no) throw new TlsError('the server does not do TLS', { final: true })
  // The text of an error is nobody's word yet: it could be anybody's.
  if (answer[0] === failure) throw new TlsError('the server answered the request for TLS with an error')
  throw new TlsError('what answered the request for TLS is not a PostgreSQL server')
}

function firstChunk(socket: Socket, signal: AbortSignal): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      signal.removeEventListener('abort', onAbort)
      socket.off('data', onData)
      socket.off('end', onEnd)
      socket.off('error', onError)
    }
    const onData = (chunk: Buffer): void => {
      settle()
      // Nothing is read that belongs to TLS before TLS is there to read it.
      if (chunk[0] === yes) socket.pause()
      resolve(chunk)
    }
    const onEnd = (): void => {
      settle()
      reject(new TlsError('the server closed the connection when it was asked for TLS'))
    }
    const onError = (error: unknown): void => {
      settle()
      reject(error)
    }
    const onAbort = (): void => {
      settle()
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    socket.on('data', onData)
    socket.on('end', onEnd)
    socket.on('error', onError)
    if (signal.aborted) return onAbort()
    socket.write(sslRequest)
  })
}

function begin(socket: Socket, host: string, tls: TlsPolicy): TLSSocket {
  try {
    return connect({
      ...(isIP(host) ? {} : { servername: host }),
      ...(tls.direct ? { ALPNProtocols: [protocol] } : {}),
      ...tls.options,
      // Whose certificate it has to be, where there is no name: without it, Node would compare with "localhost".
      host,
      socket,
    })
  } catch (cause) {
    // A key that is none, for one.
    throw new TlsError(`the options in ssl cannot be used: ${messageOf(cause)}`, { final: true, cause })
  }
}

function shakeHands(socket: Socket, host: string, tls: TlsPolicy, signal: AbortSignal): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const secured = begin(socket, host, tls)
    const settle = (): void => {
      signal.removeEventListener('abort', onAbort)
      secured.off('secureConnect', onSecure)
      secured.off('error', onError)
      secured.off('close', onClose)
      // A socket that is destroyed while it shakes hands may still report an error.
      secured.on('error', () => undefined)
    }
    const fail = (error: unknown): void => {
      settle()
      secured.destroy()
      reject(error)
    }
    const onSecure = (): void => {
      if (tls.direct && secured.alpnProtocol !== protocol) {
        return fail(new TlsError('the server did not agree to speak PostgreSQL over TLS directly', { final: true }))
      }
      settle()
      resolve(secured)
    }
    const onError = (cause: Error): void => {
      // Node tells the reason here, and only where it was the certificate.
      const isDistrusted = Boolean(secured.authorizationError)
      const what = isDistrusted ? 'the certificate of the server was not accepted' : 'the TLS handshake failed'
      fail(new TlsError(`${what}: ${cause.message}`, { final: isDistrusted, cause }))
    }
    const onClose = (): void => fail(new TlsError('the server closed the connection in the TLS handshake'))
    const onAbort = (): void => fail(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    secured.once('secureConnect', onSecure)
    secured.once('error', onError)
    secured.once('close', onClose)
  })
}
