import Table from 'cli-table3'
import type { Tally } from './tally.ts'

const number = new Intl.NumberFormat('en')

/** What each member did, and, where it is known, how long it waited for connections and how many it held. */
export function memberTable(tally: Tally, { withWaits }: { withWaits: boolean }): string {
  const table = new Table({
    head: ['member', 'done', 'lost', ...(withWaits ? ['wait p50', 'wait p99', 'most held'] : [])],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  })
  for (const member of [...tally.members.values()].toSorted((a, b) => a.label.localeCompare(b.label))) {
    const { label, done, lost, waits, held } = member
    const waited = [milliseconds(waits.percentile(50)), milliseconds(waits.percentile(99)), held]
    table.push([label, number.format(done), number.format(lost), ...(withWaits ? waited : [])])
  }
  return table.toString()
}

export function errorLines(tally: Tally): string[] {
  return [...tally.errors].map(([code, times]) => `  ${number.format(times).padStart(8)} × ${code}`)
}

function milliseconds(microseconds: number): string {
  return `${(microseconds / 1000).toFixed(1)} ms`
}
