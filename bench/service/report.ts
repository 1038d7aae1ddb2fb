import Table from 'cli-table3'
import { median } from '../support/rounds.ts'
import type { Measured } from './contender.ts'
import type { Name } from './contenders.ts'
import type { Delays } from './main-loop.ts'
import type { Point } from './points.ts'
import type { Scene } from './scenes.ts'

/** What each contender did in each round. */
export type Rounds = ReadonlyMap<Name, readonly Measured[]>

/** What the server saw of a contender. */
export interface Seen {
  readonly peak: number
  readonly logins: number
}

/** Who is compared with whom. */
const pairs: readonly (readonly [Name, Name])[] = [
  ['millpond, 4', 'usual, 2 × 10'],
  ['millpond, 4', 'usual, 2 × 2'],
  ['millpond, 20', 'usual, 2 × 10'],
]

const plain = { head: [], border: [] }

function medianOf(rounds: readonly Measured[], of: keyof Measured): string {
  return median(rounds.map((one) => one[of])).toFixed(0)
}

/** How many times as much one does as the other, within a round: the median, and where the middle half lies. */
function ratio(ours: readonly Measured[], theirs: readonly Measured[]): string {
  const each = ours
    .map(({ perSecond }, round) => perSecond / (theirs[round]?.perSecond ?? Number.NaN))
    .toSorted((a, b) => a - b)
  const quarter = Math.floor(each.length / 4)
  return `${median(each).toFixed(2)} (${each.at(quarter)?.toFixed(2)}–${each.at(-1 - quarter)?.toFixed(2)})`
}

export function reportTasks(results: ReadonlyMap<Point, Rounds>, seen: ReadonlyMap<Name, Seen>): string {
  const names = [...seen.keys()]
  const ratios = new Table({ head: ['', ...pairs.map(([one, other]) => `${one} : ${other}`)], style: plain })
  const columns = {
    head: ['', ...names],
    colAligns: ['left', ...names.map(() => 'right')] as ('left' | 'right')[],
    style: plain,
  }
  const speeds = new Table(columns)
  for (const [{ name }, rounds] of results) {
    const of = (one: Name): readonly Measured[] => rounds.get(one) ?? []
    ratios.push([name, ...pairs.map(([one, other]) => ratio(of(one), of(other)))])
    speeds.push([`tasks/s: ${name}`, ...names.map((one) => medianOf(of(one), 'perSecond'))])
    speeds.push(['  µs of the processor for each', ...names.map((one) => medianOf(of(one), 'cpu'))])
  }
  const server = new Table({ ...columns, head: ['as the server counted', ...names] })
  server.push(['connections at the same time', ...[...seen.values()].map(({ peak }) => peak)])
  server.push(['logins', ...[...seen.values()].map(({ logins }) => logins)])
  return [ratios, speeds, server].map(String).join('\n')
}

export function reportDelays(delays: ReadonlyMap<Scene, readonly Delays[]>): string {
  const table = new Table({
    head: ["ms that the main thread's loop was late", 'p50', 'p99', 'longest'],
    colAligns: ['left', 'right', 'right', 'right'],
    style: plain,
  })
  for (const [scene, rounds] of delays) {
    const of = (what: keyof Delays): number[] => rounds.map((one) => one[what])
    table.push([scene, median(of('p50')).toFixed(1), median(of('p99')).toFixed(1), Math.max(...of('max')).toFixed(1)])
  }
  return table.toString()
}
