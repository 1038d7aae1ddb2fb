// A process for one contender, and its workers.
import { items } from '../postgres/queries.ts'
import { contenders } from './contenders.ts'
import type { Contender, Name } from './contenders.ts'
import { callers } from './points.ts'
import type { Point } from './points.ts'

export interface Order {
  readonly point: Point
  /** Of the hash, in each task. */
  readonly rounds: number
  readonly ms: number
}

/** What came of it. */
export interface Measured {
  readonly perSecond: number
  /** The time of our processor for each task, all threads together, in µs. */
  readonly cpu: number
}

const [name, url] = process.argv.slice(2) as [Name, string]
const started = contenders[name](url)

async function measure(contender: Contender, { point, rounds, ms }: Order): Promise<Measured> {
  const { queries, sleepMs } = point
  let done = 0
  let counted = 0
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  const until = startedAt + ms
  const caller = async (): Promise<void> => {
    while (performance.now() < until) {
      await contender.run({ rounds, queries, sleepMs, id: 1 + Math.floor(Math.random() * items) })
      done++
      if (performance.now() < until) counted++
    }
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const { user, system } = process.cpuUsage(cpuBefore)
  return { perSecond: (counted * 1e3) / ms, cpu: (user + system) / done }
}

process.on(
  'message',
  (order: Order) => void started.then((one) => measure(one, order)).then((it) => process.send?.(it)),
)
process.once('disconnect', () => void started.then((one) => one.close()))
