import { threadId } from 'node:worker_threads'

/** What one unit of work tells about itself; it crosses threads as it is. */
export interface Done {
  readonly threadId: number
  /** How long it waited for a connection, in ms. */
  readonly waitMs: number
}

/** How a unit of work gets at the database: ours and the usual way differ in nothing else. */
export interface Database {
  /** Waits for a connection, runs `fn` with a function that queries on it, and gives it back. */
  lease(fn: (query: (ms: number) => Promise<unknown>) => Promise<void>): Promise<void>
}

/** A few milliseconds in the database, and as many of computing as asked for, while no connection is held. */
export async function work(database: Database, { queryMs, cpuMs }: { queryMs: number; cpuMs: number }): Promise<Done> {
  compute(cpuMs)
  const askedAt = performance.now()
  let waitMs = 0
  await database.lease(async (query) => {
    waitMs = performance.now() - askedAt
    await query(queryMs)
  })
  return { threadId, waitMs }
}

function compute(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}
