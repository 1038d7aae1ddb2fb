import type { PostgresSql } from '../../src/postgres/index.ts'
import type { Verdict } from './verdict.ts'

/** Rows that were written together, as whoever wrote them knows them. */
export class Rows {
  /** Those that are there if the unit is. */
  readonly sure = new Set<number>()
  /** Those of which that is not known. */
  readonly maybe = new Set<number>()

  /** What was written in a savepoint that has been kept. */
  add({ sure, maybe }: Rows): void {
    for (const row of sure) this.sure.add(row)
    for (const row of maybe) this.maybe.add(row)
  }
}

/** Who writes: an operation. */
interface Writer {
  readonly operation: number
  readonly trace: readonly string[]
}

type Outcome = 'committed' | 'rolled back' | 'unknown'

/** All that one transaction, or one statement outside of any, has written. */
export class Unit {
  readonly number: number
  readonly operation: number
  readonly trace: readonly string[]
  outcome: Outcome = 'rolled back'
  rows = new Rows()

  constructor(number: number, { operation, trace }: Writer) {
    this.number = number
    this.operation = operation
    this.trace = trace
  }

  end(outcome: Outcome, rows: Rows): void {
    this.outcome = outcome
    this.rows = rows
  }
}

export const createModelTable = `
  create table unit_row (
    unit int not null,
    row int not null,
    transaction xid8 not null default pg_current_xact_id(),
    primary key (unit, row))`

/** What the table has to show at the end: each unit complete, or not at all. */
export class Model {
  readonly #units = new Map<number, Unit>()
  #last = 0

  unit(writer: Writer): Unit {
    const unit = new Unit(++this.#last, writer)
    this.#units.set(unit.number, unit)
    return unit
  }

  get size(): number {
    return this.#units.size
  }

  async compare(sql: PostgresSql, verdict: Verdict): Promise<void> {
    const found = await sql<{ unit: number; rows: number[]; transactions: string[] }[]>`
      select unit, array_agg(row order by row) as rows, array_agg(distinct transaction::text) as transactions
      from unit_row group by unit`
    const byUnit = new Map(found.map((one) => [one.unit, one]))
    for (const unit of this.#units.values()) {
      const { rows = [], transactions = [] } = byUnit.get(unit.number) ?? {}
      byUnit.delete(unit.number)
      const wrong = disagreement(unit, new Set(rows))
      const split = transactions.length > 1 ? `in ${transactions.length} transactions` : undefined
      for (const detail of [wrong, split]) {
        if (!detail) continue
        const { sure, maybe } = unit.rows
        const model = `${unit.outcome}, ${list(sure)} sure, ${list(maybe)} perhaps`
        const { operation, trace, number } = unit
        const what = `unit ${number}`
        verdict.report({ rule: 'model', operation, what, detail: `${detail}: ${list(rows)}; model: ${model}`, trace })
      }
      verdict.count(`units ${unit.outcome}`)
    }
    for (const [unit, { rows }] of byUnit) {
      verdict.report({ rule: 'model', operation: -1, what: `unit ${unit}`, detail: `nobody has written ${list(rows)}` })
    }
  }
}

const list = (rows: Iterable<number>): string => `[${[...rows].join(', ')}]`

function disagreement({ outcome, rows: { sure, maybe } }: Unit, found: ReadonlySet<number>): string | undefined {
  if (found.size === 0) return outcome === 'committed' && sure.size > 0 ? 'nothing is there' : undefined
  if (outcome === 'rolled back') return 'something is there'
  if ([...sure].some((row) => !found.has(row))) return 'something is missing'
  return [...found].every((row) => sure.has(row) || maybe.has(row)) ? undefined : 'something else is there'
}
