// A process for one contender: in one process they would share the heap and what the engine has learnt.
import { contenders } from './contenders.ts'
import type { Name } from './contenders.ts'
import { can, measure, works } from './points.ts'
import type { Point } from './points.ts'

/** Without a point: all it can do, to have its connections open and its code compiled. */
export interface Order {
  readonly point?: Point
  readonly ms: number
}

const [name, url] = process.argv.slice(2) as [Name, string]
const contender = contenders[name](url)

async function carryOut({ point, ms }: Order): Promise<void> {
  if (point) return void process.send?.(can(contender, point) ? await measure(contender, point, ms) : null)
  for (const callers of [64, 1]) {
    for (const work of works) {
      if (can(contender, { work, callers })) await measure(contender, { work, callers }, ms / works.length / 2)
    }
  }
  process.send?.(null)
}

process.on('message', (order: Order) => void carryOut(order))
process.once('disconnect', () => void contender.close())
