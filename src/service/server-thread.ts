import { workerData } from 'node:worker_threads'
import { PoolError, TaskError } from '../errors.ts'
import type { PostgresPool } from '../postgres/index.ts'
import { openPool } from './define-pool.ts'
import { dispose } from './dispose.ts'
import { roundTrip } from './health-check.ts'
import { Listeners } from './listen.ts'
import { RunClient } from './run-client.ts'
import type { ServerContext } from './server-context.ts'
import type { FromServerThread, ServerData, ToServerThread } from './server-messages.ts'
import { isReady } from './server-status.ts'
import { toWire } from './wire.ts'

/** Of the time to stop in, each step may use what is left up to this part of it. */
const drainUntil = 0.6
const disposeUntil = 0.8
const closeUntil = 0.95
/** How soon `min` is tried again. */
const roomAgainMs = 100

/** What a server's thread does: starts the server, then waits until it is told to stop. */
export function runServer(): void {
  const data = workerData as ServerData
  const { port } = data
  const opened = openPool(data.url, data.pool).then((pool) => {
    // A connection that listens adds to it later.
    min = pool.stats().min
    return pool
  })
  const stopping = new AbortController()
  const say = (message: FromServerThread): void => port.postMessage(message)
  const client = new RunClient()
  /** What its options say. */
  let min = 0
  let again: NodeJS.Timeout | undefined
  const listeners = new Listeners(say)
  const announce = (address: unknown): void => say({ type: 'address', address })

  port.on('message', (message: ToServerThread) => {
    switch (message.type) {
      case 'listen':
        return listeners.hear(message.key, message.answer)
      case 'keep':
        // Without a pool it ends.
        return void keep(message.connections).catch(() => undefined)
      case 'stop':
        return void stop(message.timeoutMs)
    }
  })

  const starting = start()
  starting.then(
    () => say({ type: 'ready' }),
    (error: unknown) => (stopping.signal.aborted ? undefined : fail(error, Infinity)),
  )

  async function start(): Promise<unknown> {
    const pool = await opened
    // While the module loads, the pool becomes a member of the limit. What it fails of it fails of again, and is heard.
    if (data.isRestart) pool.open().catch(() => undefined)
    const module = (await import(data.module)) as { default?: (context: ServerContext) => unknown }
    if (typeof module.default !== 'function') {
      throw new TypeError(`A server's module must export a function as its default: ${data.module} does not.`)
    }
    return module.default({
      pool,
      run: (data.hasTasks ? client.run : noTasks) as ServerContext['run'],
      listen: async (server, options) => {
        const address = await listeners.listen(server, options)
        announce(address)
        return address
      },
      data: data.data,
      signal: stopping.signal,
      index: data.index,
      announce,
      ready: () => isReady(data.status) && !stopping.signal.aborted,
      check: (options) => roundTrip(pool, options),
    })
  }

  async function keep(connections: 'none' | 'min'): Promise<void> {
    const pool = await opened
    clearTimeout(again)
    resize(pool, connections === 'none' ? 0 : min)
    say({ type: 'keeps', connections })
  }

  /** What a thread has kept that has just ended may count for a moment more. */
  function resize(pool: PostgresPool, to: number): void {
    try {
      pool.resize({ min: to })
    } catch {
      if (!stopping.signal.aborted) again = setTimeout(() => resize(pool, to), roomAgainMs).unref()
    }
  }

  /** Stop accepting, finish, dispose, give the connections back; then nothing is left that keeps the thread alive. */
  async function stop(timeoutMs: number): Promise<void> {
    const startedAt = performance.now()
    const until = (part: number): number => Math.max(0, timeoutMs * part - (performance.now() - startedAt))
    stopping.abort()
    clearTimeout(again)
    let failure: { error: unknown } | undefined
    try {
      await listeners.stop(until(drainUntil))
      // One that is still starting is there in a moment, and is to be disposed of, too.
      const disposed = starting.then(dispose, () => undefined)
      await within(until(disposeUntil), disposed, () => {
        const ms = Math.round(timeoutMs * disposeUntil)
        const message = `The server "${data.name}" (${data.index}) was not disposed of within ${ms} ms.`
        return new PoolError('ERR_SERVER_STOP_TIMEOUT', message)
      })
    } catch (error) {
      failure = { error }
    }
    if (failure) return fail(failure.error, until(closeUntil))
    await end(until(closeUntil))
  }

  async function fail(error: unknown, closeTimeoutMs: number): Promise<void> {
    say({ type: 'failed', error: toWire(error) })
    await end(closeTimeoutMs)
  }

  async function end(timeoutMs: number): Promise<void> {
    const pool = await opened.catch(() => undefined)
    await pool?.close(Number.isFinite(timeoutMs) ? { timeoutMs } : undefined)
    port.close()
  }
}

function noTasks(task: string): Promise<never> {
  return Promise.reject(new TaskError(task, `Cannot run "${task}": the service has no module of tasks.`))
}

async function within(timeoutMs: number, promise: Promise<void>, error: () => Error): Promise<void> {
  if (timeoutMs === Infinity) return promise
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(error()), timeoutMs)
  })
  try {
    await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
