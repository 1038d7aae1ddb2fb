import type { AddressInfo } from 'node:net'
import type { PostgresPool } from '../postgres/index.ts'
import type { DefinedTypes } from './define-pool.ts'
import type { CheckOptions, CheckResult } from './health-check.ts'
import type { Listenable, ListenOptions } from './listen.ts'
import type { Run } from './modules.ts'

/** What a server gets to start with. */
export interface ServerContext<M = unknown, D = {}> {
  /** This thread's pool, under the limit that all threads share. */
  readonly pool: PostgresPool<DefinedTypes<D>>
  /** Runs a task on a task worker. */
  readonly run: Run<M>
  /**
   * Listens, on one port for all threads of this server; resolves with the address. Where threads cannot share a port one
   * of them listens, and another one takes over when it ends. When the service stops it is seen to that the server
   * accepts nothing more and answers what it has accepted.
   *
   * @example
   * ```ts
   * import { createServer } from 'node:http'
   * import type { ServerContext } from 'millpond/service'
   *
   * export default async function start({ pool, listen }: ServerContext): Promise<void> {
   *   const server = createServer((_request, response) => {
   *     pool.sql`select now()`.then(
   *       ([row]) => response.end(JSON.stringify(row)),
   *       () => response.writeHead(500).end(),
   *     )
   *   })
   *   await listen(server, { port: 8080 })
   * }
   * ```
   */
  readonly listen: (server: Listenable, options?: ListenOptions) => Promise<AddressInfo>
  /** Whatever the service's options say for this server. */
  readonly data: unknown
  /** Aborts when the server is to stop. */
  readonly signal: AbortSignal
  /** 0 for the first thread of this server, 1 for the second… */
  readonly index: number
  /** Tells the service's `addresses` where this server listens; `listen` does so by itself. */
  readonly announce: (address: unknown) => void
  /** Whether the whole service is ready, and this thread is not to stop. */
  readonly ready: () => boolean
  /** One round trip to the database through this thread's pool, within a deadline. */
  readonly check: (options?: CheckOptions) => Promise<CheckResult>
}
