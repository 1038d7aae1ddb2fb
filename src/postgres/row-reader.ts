import { headerSize } from './framer.ts'
import { toClient } from './frames.ts'
import { builtInParsers } from './built-in-types.ts'
import type { RawQuery } from './query.ts'

/** What postgres.js knows of a column. */
interface Column {
  readonly name: string
  readonly type: number
  readonly parser: (((text: string) => unknown) & { readonly array?: boolean }) | undefined
}

/** How a column's values are read. */
type Reading = 'text' | 'integer' | 'boolean' | 'parsed' | 'array'

interface Shape {
  readonly names: readonly string[]
  readonly readings: readonly Reading[]
  readonly parsers: readonly Column['parser'][]
}

/** The server's OIDs for the types that are read without a string. */
const boolean = 16
const integers: ReadonlySet<number> = new Set([21, 23, 26])
const minus = 45
const zero = 48
const letterT = 116

const shapes = new WeakMap<readonly Column[], Shape>()
const nothing: Buffer = Buffer.alloc(0)

/**
 * Reads the rows of a query's answer where they lie, in place of postgres.js: that makes two buffers of each row, and a
 * string of each number. What it makes of them is the same.
 *
 * State
 *   held   the beginning of a row whose end has not come
 *
 * The query has its rows when it is resolved (`RawQuery.rows`).
 */
export class RowReader {
  readonly #query: RawQuery
  #held: Buffer[] = []
  #heldLength = 0

  constructor(query: RawQuery) {
    this.#query = query
    query.rows = []
  }

  /** Whether this query's rows are what the reader makes: whole ones, all at once, of one statement. */
  static canRead({ isRaw, forEachFn, cursorFn, options }: RawQuery): boolean {
    return (isRaw === undefined || isRaw === 'values') && !forEachFn && !cursorFn && !options.simple
  }

  /** In the middle of a row. */
  get midway(): boolean {
    return this.#heldLength > 0
  }

  /**
   * Reads on, from the first byte of a row or in the middle of one, until there is no whole row any more. Returns where it
   * stopped. `refused` gets a row that could not be read, because a parser threw.
   */
  read(chunk: Buffer, from: number, refused: (row: Buffer) => void): number {
    let at = this.midway ? this.#join(chunk, from, refused) : from
    while (at < chunk.length && chunk[at] === toClient.dataRow) {
      const end = at + headerSize <= chunk.length ? at + 1 + lengthAt(chunk, at + 1) : Infinity
      if (end > chunk.length) {
        this.#hold(chunk.subarray(at))
        return chunk.length
      }
      this.#take(chunk, at, end, refused)
      at = end
    }
    return at
  }

  #hold(part: Buffer): void {
    this.#held.push(part)
    this.#heldLength += part.length
  }

  /** Goes on with a row whose beginning came before. */
  #join(chunk: Buffer, from: number, refused: (row: Buffer) => void): number {
    let at = from
    if (this.#heldLength < headerSize) {
      at = Math.min(chunk.length, from + headerSize - this.#heldLength)
      this.#hold(chunk.subarray(from, at))
      this.#held = [Buffer.concat(this.#held)]
      if (this.#heldLength < headerSize) return at
    }
    const length = 1 + lengthAt(this.#held[0] ?? nothing, 1)
    const end = Math.min(chunk.length, at + length - this.#heldLength)
    this.#hold(chunk.subarray(at, end))
    if (this.#heldLength < length) return end
    const row = Buffer.concat(this.#held)
    this.#held = []
    this.#heldLength = 0
    this.#take(row, 0, length, refused)
    return end
  }

  #take(chunk: Buffer, at: number, end: number, refused: (row: Buffer) => void): void {
    const { rows, isRaw } = this.#query
    const shape = shapeOf((this.#query.statement as { readonly columns: readonly Column[] }).columns)
    let row: unknown
    try {
      row = isRaw === 'values' ? valuesAt(chunk, at, shape) : rowAt(chunk, at, shape)
    } catch {
      return refused(chunk.subarray(at, end))
    }
    rows?.push(row)
  }
}

function shapeOf(columns: readonly Column[]): Shape {
  let shape = shapes.get(columns)
  if (!shape) {
    const names = columns.map(({ name }) => name)
    shapes.set(columns, (shape = { names, readings: columns.map(readingOf), parsers: columns.map((of) => of.parser) }))
  }
  return shape
}

function readingOf({ type, parser }: Column): Reading {
  if (parser === undefined) return 'text'
  if (parser.array === true) return 'array'
  if (parser !== builtInParsers()[type]) return 'parsed'
  return integers.has(type) ? 'integer' : type === boolean ? 'boolean' : 'parsed'
}

function rowAt(chunk: Buffer, from: number, { names, readings, parsers }: Shape): Record<string, unknown> {
  const row: Record<string, unknown> = {}
  // After the header comes the number of columns.
  let at = from + headerSize + 2
  for (let i = 0; i < names.length; i++) {
    const length = lengthAt(chunk, at)
    at += 4
    const end = length < 0 ? at : at + length
    row[names[i] as string] = length < 0 ? null : valueAt(chunk, at, end, readings[i] as Reading, parsers[i])
    at = end
  }
  return row
}

function valuesAt(chunk: Buffer, from: number, { readings, parsers }: Shape): unknown[] {
  const values: unknown[] = []
  let at = from + headerSize + 2
  for (let i = 0; i < readings.length; i++) {
    const length = lengthAt(chunk, at)
    at += 4
    const end = length < 0 ? at : at + length
    values.push(length < 0 ? null : valueAt(chunk, at, end, readings[i] as Reading, parsers[i]))
    at = end
  }
  return values
}

function valueAt(chunk: Buffer, at: number, end: number, reading: Reading, parser: Column['parser']): unknown {
  if (reading === 'integer') return integerAt(chunk, at, end)
  if (reading === 'text') return chunk.toString('utf8', at, end)
  if (reading === 'boolean') return chunk[at] === letterT
  // Of an array, the parser wants what follows the first brace.
  return parser?.(chunk.toString('utf8', reading === 'array' ? at + 1 : at, end))
}

function integerAt(chunk: Buffer, from: number, end: number): number {
  const isNegative = chunk[from] === minus
  let value = 0
  for (let at = isNegative ? from + 1 : from; at < end; at++) value = value * 10 + (chunk[at] as number) - zero
  return isNegative ? -value : value
}

/** Four bytes with a sign. */
function lengthAt(chunk: Buffer, at: number): number {
  return (
    ((chunk[at] as number) << 24) |
    ((chunk[at + 1] as number) << 16) |
    ((chunk[at + 2] as number) << 8) |
    (chunk[at + 3] as number)
  )
}
