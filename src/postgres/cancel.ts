import type { Identity } from '../driver.ts'
import { dial } from './dial.ts'
import type { Address } from './dial.ts'

const cancelRequestCode = 80877102

/**
 * Asks the server to cancel whatever the session runs now. Resolves when the server has closed the request's own
 * socket: it passes the request on before it does so, hence nothing that is sent later can be hit.
 */
export async function sendCancelRequest(
  address: Address,
  identity: Pick<Identity, 'pid' | 'secret'>,
  signal: AbortSignal,
): Promise<void> {
  const socket = await dial(address, signal)
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      socket.destroy()
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    socket.once('error', reject)
    socket.once('close', () => {
      signal.removeEventListener('abort', onAbort)
      resolve()
    })
    socket.resume()
    const request = Buffer.alloc(16)
    request.writeUInt32BE(16, 0)
    request.writeUInt32BE(cancelRequestCode, 4)
    request.writeUInt32BE(identity.pid >>> 0, 8)
    request.writeUInt32BE(identity.secret >>> 0, 12)
    socket.write(request)
    if (signal.aborted) onAbort()
  })
}
