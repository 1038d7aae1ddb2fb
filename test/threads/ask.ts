import type { MessagePort, Worker } from 'node:worker_threads'

interface Answer {
  id: number
  value?: unknown
  error?: { name: string; code: string; message: string }
}

let ids = 0

/** Gives a fixture an order. Resolves when it has been carried out, rejects with what it threw there. */
export function ask(port: Worker | MessagePort, order: string, argument?: unknown): Promise<unknown> {
  const id = ++ids
  return new Promise((resolve, reject) => {
    const listener = (answer: Answer): void => {
      if (answer.id !== id) return
      port.off('message', listener)
      if (answer.error) reject(Object.assign(new Error(answer.error.message), answer.error))
      else resolve(answer.value)
    }
    port.on('message', listener)
    port.postMessage({ id, order, argument })
  })
}
