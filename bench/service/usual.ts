import { workerData } from 'node:worker_threads'
import postgres from 'postgres'
import { perform } from './work.ts'
import type { Work } from './work.ts'

// The usual way: a worker of Piscina's with a postgres.js pool of its own.

export interface UsualData {
  readonly url: string
  readonly max: number
}

const { url, max } = workerData as UsualData
const sql = postgres(url, { max })
const database = {
  row: (id: number) => sql`select id, name, amount from item where id = ${id}`,
  sleep: (ms: number) => sql`select pg_sleep(${ms / 1_000}::float8)`,
}

export default function computeAndQuery(work: Work): Promise<number> {
  return perform(database, work)
}
