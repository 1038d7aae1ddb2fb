import { builtInParsers } from './built-in-types.ts'

export type Row = Record<string, unknown>

/** What postgres.js makes of rows that are asked for as they are. */
interface RawRows extends Iterable<readonly (Uint8Array | null)[]> {
  /** Left out where there are no rows, or several statements. */
  readonly columns?: readonly { readonly name: string; readonly type: number }[]
}

/** The rows of a statement of the pool's own: a user's types are for the user's queries. */
export function ownRows(answer: unknown): readonly Row[] {
  const rows = answer as RawRows
  const { columns } = rows
  if (!columns) return []
  return Array.from(rows, (values) =>
    Object.fromEntries(columns.map(({ name, type }, i) => [name, parsed(values[i] ?? null, type)])),
  )
}

function parsed(value: Uint8Array | null, type: number): unknown {
  if (value === null) return null
  const text = Buffer.from(value).toString()
  return builtInParsers()[type]?.(text) ?? text
}
