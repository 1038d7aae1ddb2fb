import Table from 'cli-table3'
import { median } from '../support/rounds.ts'
import type { Name } from './contenders.ts'
import { nameOf } from './points.ts'
import type { Cost, Point } from './points.ts'

/** What each contender needed in each round; nothing where it cannot do that. */
export type Measured = ReadonlyMap<Name, readonly Cost[]>

const ours: readonly Name[] = ['millpond', 'millpond, pipelining']

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

/** One of ours against all others, at the points that it can do. */
function ratios(one: Name, results: ReadonlyMap<Point, Measured>): Table.Table {
  const others = namesIn(results).filter((name) => name !== one)
  const times = new Table({
    head: ['µs of the clock', one, ...others.map((name) => `× ${name}`)],
    colAligns: ['left', 'right', ...others.map(() => 'right' as const)],
    style: { head: [], border: [] },
  })
  for (const [point, measured] of results) {
    const own = measured.get(one) ?? []
    if (own.length === 0) continue
    const cells = others.map((name) => {
      const costs = measured.get(name) ?? []
      return costs.length > 0 ? ratio(own, costs) : ''
    })
    times.push([nameOf(point), micros(median(own.map(({ wall }) => wall))), ...cells])
  }
  return times
}

function processors(results: ReadonlyMap<Point, Measured>): Table.Table {
  const names = namesIn(results)
  const cpu = new Table({
    head: ["µs of the client's processor", ...names],
    colAligns: ['left', ...names.map(() => 'right' as const)],
    style: { head: [], border: [] },
  })
  for (const [point, measured] of results) {
    const cells = names.map((name) => {
      const costs = measured.get(name) ?? []
      return costs.length > 0 ? micros(median(costs.map((cost) => cost.cpu))) : ''
    })
    cpu.push([nameOf(point), ...cells])
  }
  return cpu
}

function namesIn(results: ReadonlyMap<Point, Measured>): readonly Name[] {
  return [...(results.values().next().value?.keys() ?? [])]
}

export function report(results: ReadonlyMap<Point, Measured>): string {
  return [...ours.map((one) => ratios(one, results)), processors(results)].map(String).join('\n')
}
