import Table from 'cli-table3'

/** What one contender needs for one round, in ns for each operation. */
export type Measured = ReadonlyMap<string, readonly number[]>

/**
 * Measures all contenders in every round, in an order that is drawn anew each time: whatever the machine does meanwhile
 * hits all of them alike, and ratios are taken within a round.
 */
export async function rounds(
  count: number,
  contenders: readonly { readonly name: string; readonly measure: () => Promise<number> }[],
): Promise<Measured> {
  const measured = new Map<string, number[]>(contenders.map(({ name }) => [name, []]))
  for (let round = 0; round < count; round++) {
    for (const { name, measure } of shuffled(contenders)) measured.get(name)?.push(await measure())
  }
  return measured
}

function two(ratio: number | undefined): string {
  return (ratio ?? Number.NaN).toFixed(2)
}

/** Medians, and the median and the spread of the ratios to one of the contenders. */
export function ratios(measured: Measured, to: string): string {
  const table = new Table({
    head: ['', 'median', `× ${to}`, 'from', 'to'],
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [] },
  })
  const base = measured.get(to) ?? []
  for (const [name, times] of measured) {
    const each = times.map((time, round) => time / (base[round] ?? Number.NaN)).toSorted((a, b) => a - b)
    table.push([name, `${Math.round(median(times))} ns`, two(median(each)), two(each.at(0)), two(each.at(-1))])
  }
  return table.toString()
}

export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

export function shuffled<T>(items: readonly T[]): T[] {
  const result = [...items]
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    ;[result[i], result[j]] = [result[j] as T, result[i] as T]
  }
  return result
}
