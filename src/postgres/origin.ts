import type { RawQuery } from './query.ts'

const frames = 4
const met = new WeakSet<object>()

/**
 * Where a query was made, as its errors show it. postgres.js notes a few frames of the stack for each text, when it
 * first meets it; from inside of our tag, none of them would be the caller's.
 */
export function noteOrigin(query: RawQuery, tag: (...values: unknown[]) => unknown): void {
  const { strings } = query
  if (met.has(strings)) return
  met.add(strings)
  const symbol = Object.getOwnPropertySymbols(query).find(({ description }) => description === 'OriginError')
  const noted = symbol && (query as unknown as Record<symbol, unknown>)[symbol]
  if (!(noted instanceof Error)) return
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = frames
  Error.captureStackTrace(noted, tag)
  Error.stackTraceLimit = limit
}
