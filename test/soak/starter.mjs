import { Worker } from 'node:worker_threads'

/** Starts members' threads in the thread that it is made in, and tells how they end. */
export class Starter {
  #workers = new Map()
  #tell

  constructor(tell) {
    this.#tell = tell
  }

  /** `id` is one life of one seat. */
  start({ id, assignment, port }) {
    const worker = new Worker(new URL('./member.mjs', import.meta.url), {
      workerData: { ...assignment, port },
      transferList: [port],
      resourceLimits: { maxOldGenerationSizeMb: 64 },
    })
    let error
    worker.once('error', (thrown) => (error = { code: thrown?.code, text: thrown?.stack ?? String(thrown) }))
    worker.once('exit', (exitCode) => {
      this.#workers.delete(id)
      this.#tell({ ended: id, exitCode, error })
    })
    this.#workers.set(id, worker)
  }

  terminate(id) {
    void this.#workers.get(id)?.terminate()
  }

  /** What another thread wants. */
  obey(order) {
    if (order.do === 'start') this.start(order)
    else if (order.do === 'terminate') this.terminate(order.id)
  }
}
