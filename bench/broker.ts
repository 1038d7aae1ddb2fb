import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import Table from 'cli-table3'
import { createBroker, Pool } from '../src/index.ts'
import { FakeDriver } from '../src/testing/index.ts'
import type { Order } from './broker/asking.ts'
import { cycles } from './support/cycles.ts'
import { millpond, millpondWithBroker } from './support/peers.ts'
import { median, ratios, rounds } from './support/rounds.ts'
import { takeAndGive } from './broker/take-and-give.ts'

const connectMs = 5

function asking(workerData?: object): Worker {
  return new Worker(new URL('./broker/asking.js', import.meta.url), { workerData })
}

async function result<R>(worker: Worker, order: Order): Promise<R> {
  worker.postMessage(order)
  for (;;) {
    const [message] = (await once(worker, 'message')) as [unknown]
    if (typeof message === 'object' && message !== null && 'result' in message) return message.result as R
  }
}

/** A broker as one would write it without shared memory: in the main thread, asked by message. In ns. */
async function byMessage(times: number): Promise<number> {
  const worker = asking()
  let free = 1
  worker.on('message', (message: unknown) => {
    if (message === 'take') free--
    else if (message === 'give') free++
    else return
    worker.postMessage(free)
  })
  const ms = await result<number>(worker, { ask: times })
  await worker.terminate()
  return ms * 1e6
}

/** Connections idle here; a thread that has none wants them all at once. Resolves with how long each took, in ms. */
async function burst(count: number): Promise<number[]> {
  await using broker = createBroker({ name: `burst ${Math.random()}`, limit: count + 1 })
  await using pool = new Pool({ driver: new FakeDriver(), broker: broker.name, max: count })
  const leases = await Promise.all(Array.from({ length: count }, () => pool.acquire()))
  for (const lease of leases) await lease.release()
  const worker = asking({ broker: broker.name, connectMs })
  // They are ripe by then.
  await new Promise((resolve) => void setTimeout(resolve, 500))
  const waits = await result<number[]>(worker, { burst: count })
  await worker.terminate()
  return waits
}

/** Runs the bench and prints its tables. */
export async function run(): Promise<void> {
  console.log('\nacquire + release of an idle connection')
  const [alone, shared] = [millpond(), millpondWithBroker()]
  const idle = await rounds(
    25,
    [alone, shared].map((contender) => ({ name: contender.name, measure: () => cycles(contender) })),
  )
  console.log(ratios(idle, alone.name))
  await Promise.all([alone.close(), shared.close()])

  console.log('\ntake a permit and give it back, by message and in the ledger')
  const table = new Table({
    head: ['members', 'permits', 'in the ledger', 'by message', '×'],
    colAligns: ['right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  })
  await byMessage(1_000)
  for (const [members, permits] of [
    [2, 10],
    [16, 20],
    [64, 100],
    [64, 1_000],
  ] as const) {
    const [ours, theirs] = [[], []] as [number[], number[]]
    for (let round = 0; round < 5; round++) {
      ours.push(takeAndGive(members, permits, 2_000))
      theirs.push(await byMessage(2_000))
    }
    const [a, b] = [median(ours), median(theirs)]
    table.push([members, permits, `${Math.round(a)} ns`, `${Math.round(b)} ns`, (b / a).toFixed(0)])
  }
  console.log(table.toString())

  console.log(`\na thread without connections wants 10 that idle elsewhere; a connect takes ${connectMs} ms`)
  const first: number[] = []
  const last: number[] = []
  for (let round = 0; round < 9; round++) {
    const waits = await burst(10)
    first.push(Math.min(...waits))
    last.push(Math.max(...waits))
  }
  console.log(`the first is there after ${median(first).toFixed(1)} ms, the last after ${median(last).toFixed(1)} ms`)
}
