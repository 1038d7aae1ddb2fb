// A worker thread for the bench: asks a broker in the main thread for permits, by message, as one would without shared
// memory; or is a member that starves beside one whose connections idle.
import { once } from 'node:events'
import { parentPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { Pool } from '../../src/index.ts'
import { FakeDriver } from '../../src/testing/index.ts'

export interface Order {
  readonly ask?: number
  readonly burst?: number
}

const port = parentPort as MessagePort

async function ask(times: number): Promise<number> {
  const startedAt = performance.now()
  for (let i = 0; i < times; i++) {
    port.postMessage('take')
    await once(port, 'message')
    port.postMessage('give')
    await once(port, 'message')
  }
  return (performance.now() - startedAt) / times
}

/** Wants so many connections at once, all of which idle elsewhere, and closes them again. */
async function burst(count: number): Promise<number[]> {
  const driver = new FakeDriver()
  const { broker, connectMs } = workerData as { broker: string; connectMs: number }
  driver.behaviour.open = () => new Promise((resolve) => void setTimeout(resolve, connectMs))
  await using pool = new Pool({ driver, broker, max: count })
  // It has joined, and knows how long a connect takes.
  await pool.use(() => undefined)
  await pool.releaseIdle()
  const startedAt = performance.now()
  const waits = await Promise.all(
    Array.from({ length: count }, async () => {
      const lease = await pool.acquire()
      const ms = performance.now() - startedAt
      return { lease, ms }
    }),
  )
  for (const { lease } of waits) await lease.release()
  return waits.map(({ ms }) => ms)
}

async function carryOut({ ask: times, burst: count }: Order): Promise<void> {
  port.postMessage({ result: times === undefined ? await burst(count ?? 1) : await ask(times) })
  port.unref()
}

port.once('message', (order: Order) => void carryOut(order))
