import { createServer } from 'node:net'
import type { AddressInfo, Server, Socket } from 'node:net'
import type { Connection } from '../../src/postgres/connection.ts'
import { PostgresDriver } from '../../src/postgres/driver.ts'
import { LeaseTarget } from '../../src/postgres/lease.ts'
import { parseOptions } from '../../src/postgres/options.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import { createSql } from '../../src/postgres/sql.ts'
import type { PostgresSql } from '../../src/postgres/sql.ts'
import { Template } from '../../src/postgres/template.ts'

/** Files run at the same time on the same server, and some reap by a tag alone. */
let tags = 0

/** A driver without a pool, and what is needed to use its connections. */
export class DriverUnderTest {
  readonly driver: PostgresDriver
  readonly template: Template

  constructor(url: string, options: PostgresPoolOptions = {}) {
    const settings = parseOptions(url, options, {})
    this.template = new Template(settings)
    this.driver = new PostgresDriver(settings, this.template)
  }

  async open(tag = `mptest${process.pid.toString(36)}-${++tags}-0`, timeoutMs = 5_000): Promise<Connection> {
    return this.driver.open({ tag, signal: AbortSignal.timeout(timeoutMs) })
  }

  async close(connection: Connection, timeoutMs = 5_000): Promise<void> {
    return this.driver.close(connection, AbortSignal.timeout(timeoutMs))
  }

  /** A tag whose queries run on this connection. */
  sql(connection: Connection): PostgresSql {
    const lease = { connection } as unknown as ConstructorParameters<typeof LeaseTarget>[0]
    return createSql(this.template, new LeaseTarget(lease, this.template.options.debug))
  }
}

/** A TCP server that does with its sockets what a test wants. */
export async function tcpServer(
  onSocket: (socket: Socket) => void,
): Promise<{ port: number; server: Server } & AsyncDisposable> {
  const sockets = new Set<Socket>()
  // Half-open: what it does not end stays open.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    onSocket(socket)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    server,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}

/** What a promise rejected with. */
export async function rejection(promise: PromiseLike<unknown>): Promise<Error & { code?: string; cause?: unknown }> {
  try {
    await promise
  } catch (error) {
    if (error instanceof Error) return error
    throw error
  }
  throw new Error('it did not reject')
}
