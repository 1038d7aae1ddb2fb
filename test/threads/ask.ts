import { once } from 'node:events'
import type { EventEmitter } from 'node:events'
import type { MessagePort, Worker } from 'node:worker_threads'

interface Answer {
  id: number
  value?: unknown
  error?: { name: string; code: string; message: string }
}

let ids = 0

/** Gives `fixtures/member.mjs` an order. Resolves when it has been carried out, rejects with what it threw there. */
export async function ask(port: Worker | MessagePort, order: string, argument?: unknown): Promise<unknown> {
  const id = ++ids
  port.postMessage({ id, order, argument })
  for (;;) {
    const [answer] = (await once(port as EventEmitter, 'message')) as [Answer]
    if (answer.id !== id) continue
    if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error)
    return answer.value
  }
}
