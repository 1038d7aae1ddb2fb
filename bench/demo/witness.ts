import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'

/** Counts, on a connection of its own that no limit knows of, how many the server has. */
export class Witness {
  readonly #sql: postgres.Sql
  #watching = true
  #looking: Promise<void> = Promise.resolve()
  #baseline = 0
  /** What the server counts now, and the most it ever counted. */
  now = 0
  peak = 0
  samples = 0

  constructor(url: string) {
    this.#sql = postgres(url, { max: 1, onnotice: () => {}, connection: { application_name: 'the demo’s witness' } })
  }

  /** Looks every 5 ms from now on. What is there already belongs to somebody else. */
  async start(): Promise<void> {
    this.#baseline = await this.#count()
    this.#looking = this.#look()
  }

  async stop(): Promise<void> {
    this.#watching = false
    await this.#looking
    await this.#sql.end({ timeout: 5 })
  }

  async #look(): Promise<void> {
    while (this.#watching) {
      this.now = (await this.#count()) - this.#baseline
      this.peak = Math.max(this.peak, this.now)
      this.samples++
      await sleep(5)
    }
  }

  // A backend that is still logging in shows no database yet, and counts.
  async #count(): Promise<number> {
    const [row] = await this.#sql<[{ count: number }]>`
      select count(*)::int as count from pg_stat_activity
      where backend_type = 'client backend' and pid <> pg_backend_pid() and coalesce(datname, current_database()) = current_database()`
    return row.count
  }
}
