import { setTimeout as sleep } from 'node:timers/promises'

/** Why acquires are aborted. */
export class Abort extends Error {}

/** Thrown inside transactions and `use`. */
export class Mistake extends Error {}

/** With `timeoutMs: 0` an idle connection may still be pinged, for 2 s, and given half a second to notice its end. */
const pingMs = 2_500
export const acquireTimeoutMs = 2_000

/** What one of a thread's many callers does next. */
export class Load {
  #random
  #pools
  #watch
  #choices

  /**
   * `pools` gives the pool, and replaces it; `watch` hears of every acquire, its answer and every rejection;
   * `longQueries` says how many there are of them among a hundred others.
   */
  constructor({ random, pools, watch, longQueries }) {
    this.#random = random
    this.#pools = pools
    this.#watch = watch
    this.#choices = [
      [30, () => this.#oneShot()],
      [28, () => this.#lease()],
      [16, () => this.#use()],
      [18, () => this.#transaction()],
      [longQueries, () => this.#longQuery()],
      [2, () => this.#compute()],
      [3, () => this.#pause()],
      [1, () => this.#replacePool()],
      [1, () => this.#pools.now.evict()],
      [1, () => this.#pools.now.releaseIdle()],
    ]
  }

  async next() {
    const work = this.#random.weighted(this.#choices)
    try {
      await work()
      this.#watch.done()
    } catch (error) {
      this.#watch.rejected(error)
    }
  }

  #seconds() {
    return this.#random.chance(0.5) ? 0 : this.#random.from(1, 50) / 1_000
  }

  #options() {
    const timeoutMs = this.#random.of([0, 5, 50, 300, 1_000, acquireTimeoutMs])
    if (!this.#random.chance(0.2)) return { timeoutMs }
    const controller = new AbortController()
    setTimeout(() => controller.abort(new Abort('soak: not needed any more')), this.#random.from(0, 60))
    return { timeoutMs, signal: controller.signal }
  }

  async #acquire(options = this.#options()) {
    const answered = this.#watch.acquire(options.timeoutMs === 0 ? pingMs : options.timeoutMs)
    try {
      return await this.#pools.now.acquire(options)
    } finally {
      answered()
    }
  }

  async #oneShot() {
    const query = this.#pools.now.sql`select pg_sleep(${this.#seconds()})`
    if (this.#random.chance(0.1)) setTimeout(() => query.cancel(), this.#random.from(0, 30))
    await query
  }

  async #lease() {
    const lease = await this.#acquire()
    const { sql } = lease
    try {
      await sql`select pg_sleep(${this.#seconds()})`
      if (this.#random.chance(0.3)) {
        await sql`begin`
        await sql`insert into note values (${this.#random.from(0, 1_000)})`
        // Idle in transaction, and given back like that.
        await sleep(this.#random.from(0, 150))
      } else if (this.#random.chance(0.2)) await sql`set statement_timeout = '60s'`
      else await sleep(this.#random.from(0, 20))
    } finally {
      if (this.#random.chance(0.1)) await lease.destroy('soak')
      else await lease.release()
    }
  }

  async #use() {
    const options = this.#options()
    let answered = this.#watch.acquire(options.timeoutMs === 0 ? pingMs : options.timeoutMs)
    try {
      await this.#pools.now.use(async (sql) => {
        answered()
        answered = undefined
        await sql`select pg_sleep(${this.#seconds()})`
        if (this.#random.chance(0.1)) throw new Mistake('soak: inside use')
      }, options)
    } finally {
      answered?.()
    }
  }

  async #transaction() {
    // Of a transaction it is for everything together.
    const { timeoutMs, ...options } = this.#options()
    if (timeoutMs !== 0) options.timeoutMs = timeoutMs
    await this.#pools.now.transaction(async (sql) => {
      await sql`insert into note values (${this.#random.from(0, 1_000)})`
      if (this.#random.chance(0.3)) await sleep(this.#random.from(0, 150))
      else await sql`select pg_sleep(${this.#seconds()})`
      if (this.#random.chance(0.2)) throw new Mistake('soak: inside a transaction')
    }, options)
  }

  /** A query that nobody waits for to its end: it is cancelled, left behind, or dies with the thread. */
  async #longQuery() {
    const lease = await this.#acquire({ timeoutMs: acquireTimeoutMs })
    const isDeaf = this.#random.chance(0.5)
    const query = isDeaf ? lease.sql`select deaf()` : lease.sql`select pg_sleep(30)`
    const ended = query.then(
      () => undefined,
      (error) => this.#watch.rejected(error),
    )
    await sleep(this.#random.from(20, isDeaf ? 200 : 1_500))
    const how = this.#random.of(['cancel', 'release', 'destroy'])
    if (how === 'cancel') {
      query.cancel()
      await ended
    }
    if (how === 'destroy') await lease.destroy('soak')
    else await lease.release()
  }

  #compute() {
    const until = performance.now() + this.#random.from(5, 60)
    while (performance.now() < until);
  }

  #pause() {
    return sleep(this.#random.from(0, 200))
  }

  #replacePool() {
    return this.#pools.replace({ timeoutMs: this.#random.from(0, 500) })
  }
}
