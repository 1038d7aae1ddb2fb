// Counts, on a superuser's connection that no limit knows of and in a thread of its own, what the server has.
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import postgres from 'postgres'

const word = { allowed: 0, peak: 1, stop: 2, ready: 3 }

/** The witness, as the main thread sees it. */
export class Witness {
  #words = new Int32Array(new SharedArrayBuffer(Object.keys(word).length * 4))
  #worker
  #summary

  /** `onExcess` hears of the first counts above what is allowed, with the server's list. */
  constructor(url, allowed, onExcess) {
    this.allowed = allowed
    this.#worker = new Worker(new URL(import.meta.url), { workerData: { url, words: this.#words } })
    this.#summary = new Promise((resolve, reject) => {
      this.#worker.on('message', (message) => (message.excess ? onExcess(message.excess) : resolve(message.summary)))
      this.#worker.once('error', reject)
    })
  }

  async ready() {
    while (Atomics.load(this.#words, word.ready) === 0) await Promise.race([sleep(5), this.#summary])
  }

  get allowed() {
    return Atomics.load(this.#words, word.allowed)
  }

  /** The most that it has counted. */
  get peak() {
    return Atomics.load(this.#words, word.peak)
  }

  /** How many there may be from now on. */
  set allowed(count) {
    Atomics.store(this.#words, word.allowed, count)
  }

  async stop() {
    Atomics.store(this.#words, word.stop, 1)
    return this.#summary
  }
}

/** All that a limit is about: every backend of a client but the superuser's. One at login shows no user yet. */
export const others = `backend_type = 'client backend' and usename is distinct from 'postgres'`

// The list is read backend by backend, and one can end and another begin meanwhile. Those that had begun before the
// statement did were all there together at that moment: only they are evidence.
const count = `
  select count(*)::int as count,
    case when count(*) > $1 then json_agg(json_build_object('pid', pid, 'name', application_name, 'state', state,
      'ageMs', round(1000 * extract(epoch from statement_timestamp() - backend_start)), 'query', left(query, 60))) end as list
  from pg_stat_activity where ${others} and backend_start <= statement_timestamp()`

async function look({ url, words }) {
  const sql = postgres(url, { max: 1, onnotice: () => {} })
  const summary = { samples: 0, peak: 0, excesses: 0, longestGapMs: 0 }
  await sql.unsafe(count, [0])
  Atomics.store(words, word.ready, 1)
  let last = performance.now()
  while (Atomics.load(words, word.stop) === 0) {
    const before = Atomics.load(words, word.allowed)
    const [row] = await sql.unsafe(count, [before], { prepare: true })
    const now = performance.now()
    summary.longestGapMs = Math.max(summary.longestGapMs, now - last)
    last = now
    summary.samples++
    summary.peak = Math.max(summary.peak, row.count)
    Atomics.store(words, word.peak, summary.peak)
    // What is allowed may change while it looks.
    const allowed = Math.max(before, Atomics.load(words, word.allowed))
    if (row.count <= allowed) continue
    summary.excesses++
    const at = performance.timeOrigin + now
    if (summary.excesses <= 5) parentPort.postMessage({ excess: { at, count: row.count, allowed, list: row.list } })
  }
  await sql.end({ timeout: 5 })
  parentPort.postMessage({ summary })
}

if (!isMainThread && workerData?.words) await look(workerData)
