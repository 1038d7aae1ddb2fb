import Table from 'cli-table3'
import type { Scenario } from './scenarios.ts'
import type { Outcome } from './simulate.ts'

const columns: readonly (readonly [string, (outcome: Outcome) => string])[] = [
  ['share of ideal', ({ share }) => share.toFixed(2)],
  ['moves/s', ({ moves }) => moves.toFixed(moves < 10 ? 1 : 0)],
  ['Jain', ({ jain }) => jain?.toFixed(2) ?? '–'],
  ['longest wait, ms', ({ longest }) => longest.toFixed(0)],
  ['p99 wait, ms', ({ p99 }) => p99.toFixed(0)],
]

/** One row for each scenario; in each cell one value for each setting. */
export function report(outcomes: ReadonlyMap<Scenario, readonly Outcome[]>): string {
  const table = new Table({
    head: ['', ...columns.map(([name]) => name)],
    style: { head: [], border: [] },
  })
  for (const [{ name }, all] of outcomes) {
    table.push([name, ...columns.map(([, show]) => all.map(show).join('  '))])
  }
  return table.toString()
}
