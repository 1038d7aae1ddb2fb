import { workerData } from 'node:worker_threads'
import { createPool } from '../src/postgres/index.ts'
import type { ServerContext } from '../src/service/modules.ts'
import { RunClient } from '../src/service/run-client.ts'
import type { FromServer, ServerThreadData, ToServer } from '../src/service/thread.ts'
import { toWire } from '../src/service/wire.ts'

// The entry point of a server's thread: starts the server, then waits until it is told to stop.

const data = workerData as ServerThreadData
const { port } = data
const pool = createPool(data.url, data.pool)
const stopping = new AbortController()
const say = (message: FromServer): void => port.postMessage(message)
const client = new RunClient(say)

port.on('message', (message: ToServer) => {
  if (message.type === 'reply') client.answer(message)
  else void stop()
})

const starting = start()
starting.then(() => say({ type: 'ready' }), fail)

async function start(): Promise<unknown> {
  const module = (await import(data.module)) as { default?: (context: ServerContext) => unknown }
  if (typeof module.default !== 'function') {
    throw new TypeError(`A server's module must export a function as its default: ${data.module} does not.`)
  }
  return module.default({
    pool,
    run: client.run as ServerContext['run'],
    data: data.data,
    signal: stopping.signal,
    index: data.index,
    announce: (address) => say({ type: 'address', address }),
  })
}

/** Stop accepting, finish, dispose, give the connections back; then nothing is left that keeps the thread alive. */
async function stop(): Promise<void> {
  stopping.abort()
  try {
    // One that is still starting is there in a moment, and is to be disposed of, too.
    await dispose(await starting)
  } catch (error) {
    return fail(error)
  }
  await end()
}

async function dispose(server: unknown): Promise<void> {
  if (typeof server !== 'object' || server === null) return
  if (Symbol.asyncDispose in server) await (server as AsyncDisposable)[Symbol.asyncDispose]()
  else if (Symbol.dispose in server) (server as Disposable)[Symbol.dispose]()
}

async function fail(error: unknown): Promise<void> {
  say({ type: 'failed', reply: { ok: false, error: toWire(error) } })
  await end()
}

async function end(): Promise<void> {
  await pool.close()
  port.close()
}
