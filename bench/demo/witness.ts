import { Worker, isMainThread, workerData } from 'node:worker_threads'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import postgres from 'postgres'

// Counts, on a connection of its own that no limit knows of, how many the server has. On a thread of its own, too, so
// that it looks every 5 ms however busy the others are.

const word = { now: 0, peak: 1, samples: 2, stop: 3, ready: 4 } as const

interface Assignment {
  readonly url: string
  readonly words: Int32Array
}

/** The witness, as the main thread sees it. */
export class Witness {
  readonly #words = new Int32Array(new SharedArrayBuffer(5 * Int32Array.BYTES_PER_ELEMENT))
  readonly #worker: Worker
  readonly #ended: Promise<void>

  /** Starts to look. What is there by then belongs to somebody else. */
  constructor(url: string) {
    const assignment: Assignment = { url, words: this.#words }
    this.#worker = new Worker(fileURLToPath(import.meta.url), { workerData: assignment })
    this.#ended = new Promise((resolve, reject) => {
      this.#worker.once('exit', () => resolve())
      this.#worker.once('error', reject)
    })
    this.#ended.catch((error: unknown) => console.error('The witness cannot look any more:', error))
  }

  get now(): number {
    return Atomics.load(this.#words, word.now)
  }

  get peak(): number {
    return Atomics.load(this.#words, word.peak)
  }

  get samples(): number {
    return Atomics.load(this.#words, word.samples)
  }

  /** Resolves when it has looked for the first time. */
  async ready(): Promise<void> {
    while (Atomics.load(this.#words, word.ready) === 0) await Promise.race([sleep(5), this.#ended])
  }

  async stop(): Promise<void> {
    Atomics.store(this.#words, word.stop, 1)
    await this.#ended
  }
}

async function look({ url, words }: Assignment): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice: () => {}, connection: { application_name: 'the demo’s witness' } })
  // A backend that is still logging in shows no database yet, and counts.
  const count = async (): Promise<number> => {
    const [row] = await sql<[{ count: number }]>`
      select count(*)::int as count from pg_stat_activity
      where backend_type = 'client backend' and pid <> pg_backend_pid() and coalesce(datname, current_database()) = current_database()`
    return row.count
  }
  const before = await count()
  Atomics.store(words, word.ready, 1)
  while (Atomics.load(words, word.stop) === 0) {
    const now = (await count()) - before
    Atomics.store(words, word.now, now)
    Atomics.store(words, word.peak, Math.max(Atomics.load(words, word.peak), now))
    Atomics.add(words, word.samples, 1)
    await sleep(5)
  }
  await sql.end({ timeout: 5 })
}

if (!isMainThread) {
  look(workerData as Assignment).catch((error: unknown) => {
    throw error
  })
}
