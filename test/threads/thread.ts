import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { onTestFinished } from 'vitest'
import type { PoolStats } from 'millpond'

interface Answer {
  id: number
  value?: unknown
  error?: { name: string; code: string; message: string }
}

/** A worker thread with a pool of its own that does what it is told. */
export class Thread {
  readonly worker: Worker
  #ids = 0

  constructor(url: string, pool: object) {
    this.worker = new Worker(new URL('./fixtures/member.mjs', import.meta.url), { workerData: { url, pool } })
    this.worker.setMaxListeners(100)
    onTestFinished(async () => void (await this.worker.terminate()))
  }

  /** Resolves when the order has been carried out, rejects with what it threw there. */
  async tell(order: string, argument?: unknown): Promise<unknown> {
    const id = ++this.#ids
    this.worker.postMessage({ id, order, argument })
    for (;;) {
      const [answer] = (await once(this.worker, 'message')) as [Answer]
      if (answer.id !== id) continue
      if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error)
      return answer.value
    }
  }

  async stats(): Promise<PoolStats> {
    return (await this.tell('stats')) as PoolStats
  }

  async terminate(): Promise<void> {
    await this.worker.terminate()
  }
}
