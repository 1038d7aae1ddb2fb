import Table from 'cli-table3'
import { median } from '../support/rounds.ts'
import type { Name } from './contenders.ts'
import { nameOf } from './points.ts'
import type { Cost, Point } from './points.ts'

/** What each contender needed in each round; nothing where it cannot do that. */
export type Measured = ReadonlyMap<Name, readonly Cost[]>

const ours: Name = 'millpond'

function micros(value: number): string {
  return value < 100 ? value.toFixed(1) : value.toFixed(0)
}

/** How much faster we are, within a round: the median, and where the middle half lies. */
function ratio(own: readonly Cost[], other: readonly Cost[]): string {
  const each = other.map(({ wall }, round) => wall / (own[round]?.wall ?? Number.NaN)).toSorted((a, b) => a - b)
  const quarter = Math.floor(each.length / 4)
  const [from, to] = [each.at(quarter), each.at(-1 - quarter)]
  return `${median(each).toFixed(2)} (${from?.toFixed(2)}–${to?.toFixed(2)})`
}

export function report(results: ReadonlyMap<Point, Measured>): string {
  const names = [...(results.values().next().value?.keys() ?? [])]
  const others = names.filter((name) => name !== ours)
  const times = new Table({
    head: ['µs of the clock', ours, ...others.map((name) => `× ${name}`)],
    colAligns: ['left', ...names.map(() => 'right' as const)],
    style: { head: [], border: [] },
  })
  const cpu = new Table({
    head: ["µs of the client's processor", ...names],
    colAligns: ['left', ...names.map(() => 'right' as const)],
    style: { head: [], border: [] },
  })
  for (const [point, measured] of results) {
    const own = measured.get(ours) ?? []
    const cells = others.map((name) => {
      const costs = measured.get(name) ?? []
      return costs.length > 0 ? ratio(own, costs) : ''
    })
    times.push([nameOf(point), micros(median(own.map(({ wall }) => wall))), ...cells])
    cpu.push([
      nameOf(point),
      ...names.map((name) => {
        const costs = measured.get(name) ?? []
        return costs.length > 0 ? micros(median(costs.map((cost) => cost.cpu))) : ''
      }),
    ])
  }
  return `${times.toString()}\n${cpu.toString()}`
}
