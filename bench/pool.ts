import { Pool } from '../src/index.ts'
import { FakeDriver } from '../src/testing/index.ts'
import { cycles } from './support/cycles.ts'
import { floor, millpond, millpondWithBroker, peers } from './support/peers.ts'
import type { Contender } from './support/peers.ts'
import { median, ratios, rounds } from './support/rounds.ts'

const connections = 10

/** So many callers at once, each of which acquires and releases; ten of them at a time have a connection. */
async function waiters(contender: Contender, callers: number): Promise<number> {
  const times: number[] = []
  // As many callers in all, however many at once.
  for (let left = 100_000; left > 0; left -= callers) times.push(await crowd(contender, callers))
  return median(times)
}

async function crowd(contender: Contender, callers: number): Promise<number> {
  const startedAt = performance.now()
  const all: Promise<void>[] = []
  for (let i = 0; i < callers; i++) {
    all.push(contender.acquire().then((lease) => contender.release(lease)))
  }
  await Promise.all(all)
  return ((performance.now() - startedAt) * 1e6) / callers
}

/** Aborts every second one of so many waiters, from the middle outwards; the others are served. Ours only. */
async function aborts(callers: number): Promise<number> {
  const pool = new Pool({ driver: new FakeDriver(), max: 1, acquireTimeoutMs: Infinity })
  const held = await pool.acquire()
  const waiting = Array.from({ length: callers }, () => {
    const controller = new AbortController()
    return { controller, done: pool.acquire({ signal: controller.signal }).then((lease) => lease.release()) }
  })
  const middle = callers / 2
  const aborted = waiting.filter((_, i) => i % 2 === 0).toSorted(() => 0)
  const startedAt = performance.now()
  for (let i = 0; i < aborted.length; i++) {
    const at = Math.floor(aborted.length / 2) + (i % 2 === 0 ? 1 : -1) * Math.ceil(i / 2)
    aborted[Math.min(aborted.length - 1, Math.max(0, at))]?.controller.abort()
  }
  const ns = ((performance.now() - startedAt) * 1e6) / middle
  await held.release()
  await Promise.allSettled(waiting.map(({ done }) => done))
  await pool.close()
  return ns
}

/** Runs the bench and prints its tables. */
export async function run(): Promise<void> {
  const makers = [floor, millpond, millpondWithBroker, ...peers]
  const contenders = makers.map((make) => make())
  console.log('\nacquire + release of an idle connection')
  const idles = await rounds(
    9,
    contenders.map((contender) => ({ name: contender.name, measure: () => cycles(contender) })),
  )
  console.log(ratios(idles, 'floor'))

  const queueing = contenders.filter(({ name }) => name !== 'floor')
  const perOperation: number[] = []
  for (const callers of [1_000, 20_000, 100_000]) {
    console.log(`\n${callers} callers on ${connections} connections, for each caller`)
    const measured = await rounds(
      callers > 50_000 ? 5 : 9,
      queueing.map((contender) => ({ name: contender.name, measure: () => waiters(contender, callers) })),
    )
    perOperation.push(median(measured.get('millpond') ?? []))
    console.log(ratios(measured, 'millpond'))
  }
  const growth = (perOperation.at(-1) ?? Number.NaN) / (perOperation[0] ?? Number.NaN)
  console.log(`\nmillpond, 100,000 callers to 1,000: × ${growth.toFixed(2)} for each`)

  await aborts(1_000)
  const few = await aborts(10_000)
  const many = await aborts(100_000)
  console.log(`aborting from the middle of 10,000: ${few.toFixed(0)} ns each, of 100,000: ${many.toFixed(0)} ns each`)
  await Promise.all(contenders.map((contender) => contender.close()))
}
