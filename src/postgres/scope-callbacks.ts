import type { RawQuery } from './query.ts'

/** What postgres.js calls while an answer comes: on behalf of the socket, that is, in nobody's transaction. */
interface Calling extends RawQuery {
  forEachFn?: Callback
  cursorFn?: Callback
}

type Callback = (...values: unknown[]) => unknown

interface Emitting {
  emit(...values: unknown[]): unknown
}

/** The callbacks of a query, and the listeners of its stream, run where the query does. */
export function callBack(query: RawQuery, inside: <R>(fn: () => R) => R): void {
  const calling = query as Calling
  const { forEachFn, cursorFn } = calling
  if (forEachFn) calling.forEachFn = (...values) => inside(() => forEachFn(...values))
  if (cursorFn) calling.cursorFn = (...values) => inside(() => cursorFn(...values))
  const { resolve } = query
  query.resolve = (value) => {
    if (emits(value)) {
      const emit = value.emit.bind(value)
      value.emit = (...values) => inside(() => emit(...values))
    }
    resolve(value)
  }
}

function emits(value: unknown): value is Emitting {
  return typeof value === 'object' && value !== null && 'emit' in value && typeof value.emit === 'function'
}
