import { connect, isIP } from 'node:net'
import type { Socket } from 'node:net'
import { secure } from './tls.ts'
import type { TlsPolicy } from './tls.ts'

/** Where a server listens, and how the stream is secured. A unix socket needs no securing. */
export type Address =
  | { readonly host: string; readonly port: number; readonly tls?: TlsPolicy }
  | { readonly path: string }

/** How far a connection has come, for the error of one that was left. */
export type DialStep = 'name' | 'tcp' | 'tls'

/** The kernel asks a silent peer for a sign of life after this long. */
const keepAliveMs = 30_000

/**
 * How long one of several addresses of a name is tried before the next one. Node's default gives up on servers that are
 * merely far away.
 */
const attemptMs = 2_000

/** Addresses as people write them. */
export function shownAddress(address: Address): string {
  if ('path' in address) return address.path
  return `${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`
}

/**
 * One connected stream, secured if the address says so. Rejects with the socket's error, a `TlsError`, or with
 * `signal.reason`; whichever way, nothing is left open.
 */
export async function dial(
  address: Address,
  signal: AbortSignal,
  onStep: (step: DialStep) => void = ignore,
): Promise<Socket> {
  const socket = await connected(address, signal, onStep)
  if ('path' in address || !address.tls) return socket
  onStep('tls')
  return secure(socket, address.host, address.tls, signal)
}

function ignore(): void {}

function connected(address: Address, signal: AbortSignal, onStep: (step: DialStep) => void): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    onStep('path' in address || isIP(address.host) ? 'tcp' : 'name')
    const socket = connect(
      'path' in address
        ? { path: address.path }
        : {
            host: address.host,
            port: address.port,
            noDelay: true,
            keepAlive: true,
            keepAliveInitialDelay: keepAliveMs,
            autoSelectFamilyAttemptTimeout: attemptMs,
          },
    )
    const settle = (): void => {
      signal.removeEventListener('abort', onAbort)
      socket.off('connect', onConnect)
      socket.off('error', onError)
      // Errors may come while nobody else listens: after a destroy, or before the socket's user has it.
      socket.on('error', ignore)
    }
    const onConnect = (): void => {
      settle()
      resolve(socket)
    }
    const onError = (error: unknown): void => {
      settle()
      reject(error)
    }
    const onAbort = (): void => {
      settle()
      socket.destroy()
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    socket.once('lookup', () => onStep('tcp'))
    socket.once('connect', onConnect)
    socket.once('error', onError)
  })
}
