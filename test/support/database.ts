import postgres from 'postgres'
import { inject } from 'vitest'
import type { ServerInfo } from './server.ts'

/** A database for one test file. */
export interface TestDatabase extends AsyncDisposable {
  readonly name: string
  readonly url: string
  readonly server: ServerInfo
  /** A client outside any pool, on another database, so that it is not counted with this one's sessions. */
  readonly admin: postgres.Sql
  /** The server's sessions on this database. */
  sessions(): Promise<readonly Session[]>
  /** Waits until the server has as many sessions on this database as `count` says. */
  sessionsToBe(count: number): Promise<void>
  /** Waits until a session is at work at a statement with this in it. */
  toRun(text: string): Promise<void>
  drop(): Promise<void>
}

export interface Session {
  readonly pid: number
  readonly name: string
  readonly state: string | null
  readonly query: string
  /** What it waits for. */
  readonly wait: string | null
}

export async function createDatabase(): Promise<TestDatabase> {
  const server = inject('server')
  const admin = postgres(server.url, { max: 1, onnotice: () => undefined })
  const name = `test_${process.pid}_${Date.now().toString(36)}`
  await admin.unsafe(`create database ${name}`)
  const sessions = async (): Promise<readonly Session[]> =>
    await admin<Session[]>`
      select pid, application_name as name, state, query, wait_event as wait from pg_stat_activity
      where datname = ${name} and backend_type = 'client backend'`
  const drop = async (): Promise<void> => {
    await admin.unsafe(`drop database ${name} with (force)`)
    await admin.end()
  }
  return {
    name,
    url: server.url.replace(/\/postgres$/, `/${name}`),
    server,
    admin,
    sessions,
    async sessionsToBe(count) {
      await until(async () => (await sessions()).length === count, `${count} sessions`)
    },
    toRun: (text) =>
      until(
        async () => (await sessions()).some(({ state, query }) => state === 'active' && query.includes(text)),
        text,
      ),
    drop,
    [Symbol.asyncDispose]: drop,
  }
}

/** Waits for something to be so; fails when it is not within 5 seconds. */
export async function until(condition: () => boolean | Promise<boolean>, what = 'it to be so'): Promise<void> {
  const deadline = Date.now() + 5_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 2)
    })
  }
}
