import { connect } from 'node:net'
import type { Socket } from 'node:net'

/** Where a server listens. */
export type Address = { readonly host: string; readonly port: number } | { readonly path: string }

/** The kernel asks a silent peer for a sign of life after this long. */
const keepAliveMs = 30_000

/** One connected stream. Rejects with the socket's error, or with `signal.reason`; either way nothing is left open. */
export function dial(address: Address, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const socket = connect(
      'path' in address
        ? { path: address.path }
        : { ...address, noDelay: true, keepAlive: true, keepAliveInitialDelay: keepAliveMs },
    )
    const settle = (): void => {
      signal.removeEventListener('abort', onAbort)
      socket.off('connect', onConnect)
      socket.off('error', onError)
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
      // A socket that is destroyed while it connects may still report an error.
      socket.on('error', () => undefined)
      socket.destroy()
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    socket.once('connect', onConnect)
    socket.once('error', onError)
  })
}
