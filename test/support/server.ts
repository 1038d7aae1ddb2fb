import type { TestProject } from 'vitest/node'
import { startServer } from '../../bench/support/embedded.ts'

/** How to reach the server of this test run. */
export interface ServerInfo {
  readonly url: string
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly socketDirectory: string
}

declare module 'vitest' {
  export interface ProvidedContext {
    server: ServerInfo
  }
}

/** One PostgreSQL server for the whole run; each file makes a database of its own in it. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const server = await startServer({ max_connections: 100 })
  const { url, host, port, user, password, socketDirectory } = server
  project.provide('server', { url, host, port, user, password, socketDirectory })
  return () => server.stop()
}
