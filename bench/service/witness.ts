import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'

const everyMs = 20

/** Counts, on a connection of its own in another database, how many backends a database has. */
export class Witness {
  readonly #sql: postgres.Sql
  readonly #peaks = new Map<string, number>()
  #watched: string | undefined
  #looking: Promise<void> | undefined

  constructor(url: string) {
    this.#sql = postgres(url, { max: 1 })
  }

  /** Looks every 20 ms, until `stop`, at one database; the peaks are of all its times. */
  watch(database: string): void {
    this.#watched = database
    this.#looking = this.#look(database)
  }

  async stop(): Promise<void> {
    this.#watched = undefined
    await this.#looking
  }

  peak(database: string): number {
    return this.#peaks.get(database) ?? 0
  }

  /** How many have logged in to a database so far, as far as the server has written it down. */
  async logins(database: string): Promise<number> {
    const [row] = await this.#sql<[{ sessions: number }]>`
      select sessions::int from pg_stat_database where datname = ${database}`
    return row.sessions
  }

  async end(): Promise<void> {
    await this.#sql.end()
  }

  async #look(database: string): Promise<void> {
    while (this.#watched === database) {
      // One that is still logging in shows no database yet, and counts.
      const [row] = await this.#sql<[{ count: number }]>`
        select count(*)::int as count from pg_stat_activity
        where backend_type = 'client backend' and coalesce(datname, ${database}) = ${database}`
      this.#peaks.set(database, Math.max(this.peak(database), row.count))
      await sleep(everyMs)
    }
  }
}
