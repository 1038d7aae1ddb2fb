import Table from 'cli-table3'
import type { Bench } from 'tinybench'

/** A table of medians, and of their ratios to one of the tasks: the same run on the same machine. */
export function ratioTable(bench: Bench, floor: string): string {
  const table = new Table({
    head: ['', 'median', `× ${floor}`],
    colAligns: ['left', 'right', 'right'],
    style: { head: [], border: [] },
  })
  const median = (name: string): number => {
    const result = bench.getTask(name)?.result
    if (result?.state !== 'completed') throw new Error(`The task "${name}" did not complete`)
    return result.latency.p50
  }
  for (const { name } of bench.tasks) {
    table.push([name, `${(median(name) * 1e6).toFixed(0)} ns`, (median(name) / median(floor)).toFixed(2)])
  }
  return table.toString()
}
