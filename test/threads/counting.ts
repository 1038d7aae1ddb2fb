import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'

/** Looks, every 5 ms and on a connection that no limit knows of, how many backends the server counts in a database. */
export class Counting implements AsyncDisposable {
  readonly #sql: postgres.Sql
  readonly #database: string
  #looking: Promise<void>
  #stopped = false
  peak = 0
  samples = 0

  constructor(sql: postgres.Sql, database: string) {
    this.#sql = sql
    this.#database = database
    this.#looking = this.#look()
  }

  async stop(): Promise<{ peak: number; samples: number }> {
    this.#stopped = true
    await this.#looking
    return { peak: this.peak, samples: this.samples }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #look(): Promise<void> {
    while (!this.#stopped) {
      this.peak = Math.max(this.peak, await count(this.#sql, this.#database))
      this.samples++
      await sleep(5)
    }
  }
}

/** Backends of clients in a database, the one that asks not included. */
export async function count(sql: postgres.Sql, database: string): Promise<number> {
  const [row] = await sql<[{ count: number }]>`
    select count(*)::int as count from pg_stat_activity
    where datname = ${database} and backend_type = 'client backend' and pid <> pg_backend_pid()`
  return row.count
}
