import { Pool as PgPool } from 'pg'
import type { Query as PgQuery } from 'pg'
import postgres from 'postgres'
import { createPool } from '../../src/postgres/index.ts'
import { oneRow, manyRows, portion } from './queries.ts'

/** Ten connections to a server, ours or a peer's, and what is done with them. Each resolves with the rows. */
export interface Contender {
  row(id: number): Promise<readonly unknown[]>
  rows(from: number): Promise<readonly unknown[]>
  /** A connection of one's own for one query; undefined where it has no such thing. */
  lease?(id: number): Promise<readonly unknown[]>
  /** Three queries between BEGIN and COMMIT. */
  transaction?(id: number): Promise<readonly unknown[]>
  close(): Promise<unknown>
}

const max = 10

function millpond(url: string): Contender {
  const pool = createPool(url, { max })
  const { sql } = pool
  return {
    row: (id) => sql`select id, name, amount from item where id = ${id}`,
    rows: (from) => sql`select id, name, amount from item where id >= ${from} order by id limit ${portion}`,
    async lease(id) {
      const lease = await pool.acquire()
      try {
        return await lease.sql`select id, name, amount from item where id = ${id}`
      } finally {
        await lease.release()
      }
    },
    transaction: (id) =>
      pool.transaction(async (tx) => {
        await tx`select id, name, amount from item where id = ${id}`
        await tx`select id, name, amount from item where id = ${id}`
        return await tx`select id, name, amount from item where id = ${id}`
      }),
    close: () => pool.close(),
  }
}

/** The same, whose single queries go out behind others where no connection is free. */
function millpondPipelining(url: string): Contender {
  const pool = createPool(url, { max, pipelining: 16 })
  return { ...oneShots(pool.sql), close: () => pool.close() }
}

/** postgres.js's own pool. It sends queries on a connection without waiting for the answers to those before them. */
function pipelining(url: string): Contender {
  const sql = postgres(url, { max })
  return {
    ...oneShots(sql),
    async lease(id) {
      const reserved = await sql.reserve()
      try {
        return await reserved`select id, name, amount from item where id = ${id}`
      } finally {
        reserved.release()
      }
    },
    transaction: (id) =>
      sql.begin(async (tx) => {
        await tx`select id, name, amount from item where id = ${id}`
        await tx`select id, name, amount from item where id = ${id}`
        return await tx`select id, name, amount from item where id = ${id}`
      }),
  }
}

/** The same with one unanswered query at a time, as ours. Its transactions do not work so. */
function oneUnanswered(url: string): Contender {
  return oneShots(postgres(url, { max, max_pipeline: 0 } as postgres.Options<{}>))
}

function oneShots(sql: postgres.Sql): Contender {
  return {
    row: (id) => sql`select id, name, amount from item where id = ${id}`,
    rows: (from) => sql`select id, name, amount from item where id >= ${from} order by id limit ${portion}`,
    close: () => sql.end(),
  }
}

/** pg as most people use it: the server parses and plans each query anew. */
function pg(url: string): Contender {
  return pgWith(url, (_, text, values) => ({ text, values }))
}

/** pg with a name for each query, so that each connection prepares it once, as postgres.js does. */
function pgNamed(url: string): Contender {
  return pgWith(url, (name, text, values) => ({ name, text, values }))
}

function pgWith(url: string, query: (name: string, text: string, values: unknown[]) => PgQuery): Contender {
  const pool = new PgPool({ connectionString: url, max })
  const one = (id: number): PgQuery => query('one', oneRow, [id])
  return {
    row: async (id) => (await pool.query(one(id))).rows,
    rows: async (from) => (await pool.query(query('many', manyRows, [from, portion]))).rows,
    async lease(id) {
      const client = await pool.connect()
      try {
        return (await client.query(one(id))).rows
      } finally {
        client.release()
      }
    },
    async transaction(id) {
      const client = await pool.connect()
      try {
        await client.query('begin')
        await client.query(one(id))
        await client.query(one(id))
        const { rows } = await client.query(one(id))
        await client.query('commit')
        return rows
      } finally {
        client.release()
      }
    },
    close: () => pool.end(),
  }
}

export type Name =
  | 'millpond'
  | 'millpond, pipelining'
  | 'pg.Pool'
  | 'pg.Pool, named'
  | 'postgres.js, one unanswered'
  | 'postgres.js'

export const contenders: Readonly<Record<Name, (url: string) => Contender>> = {
  millpond,
  'millpond, pipelining': millpondPipelining,
  'pg.Pool': pg,
  'pg.Pool, named': pgNamed,
  'postgres.js, one unanswered': oneUnanswered,
  'postgres.js': pipelining,
}
