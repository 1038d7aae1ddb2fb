import { Worker } from 'node:worker_threads'
import { onTestFinished } from 'vitest'
import type { PoolStats } from 'millpond'
import { ask } from './ask.ts'

/** A worker thread with a pool of its own that does what it is told. */
export class Thread {
  readonly worker: Worker

  constructor(url: string, pool: object) {
    this.worker = new Worker(new URL('./fixtures/member.mjs', import.meta.url), { workerData: { url, pool } })
    this.worker.setMaxListeners(100)
    onTestFinished(async () => void (await this.worker.terminate()))
  }

  /** Resolves when the order has been carried out, rejects with what it threw there. */
  tell(order: string, argument?: unknown): Promise<unknown> {
    return ask(this.worker, order, argument)
  }

  async stats(): Promise<PoolStats> {
    return (await this.tell('stats')) as PoolStats
  }

  async terminate(): Promise<void> {
    await this.worker.terminate()
  }
}
