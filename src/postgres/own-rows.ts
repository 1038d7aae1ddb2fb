import postgres from 'postgres'

export type Row = Record<string, unknown>

type Parse = (text: string) => unknown

/** What postgres.js makes of rows that are asked for as they are. */
interface RawRows extends Iterable<readonly (Uint8Array | null)[]> {
  /** Left out where there are no rows, or several statements. */
  readonly columns?: readonly { readonly name: string; readonly type: number }[]
}

let parsers: Readonly<Record<number, Parse | undefined>> | undefined

/** postgres.js's own, whatever the user's are. With values that it knows it does not look into the environment. */
export function builtInParsers(): Readonly<Record<number, Parse | undefined>> {
  parsers ??= postgres({ host: 'nowhere.invalid', max: 1, user: 'nobody', target_session_attrs: 'read-write' }).options
    .parsers as Readonly<Record<number, Parse | undefined>>
  return parsers
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
