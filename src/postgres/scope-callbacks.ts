import { settleBy } from './query.ts'
import type { RawQuery } from './query.ts'

interface Emitting {
  emit(...values: unknown[]): unknown
}

/**
 * The callbacks of a query, and the listeners of its stream, run where the query does. postgres.js calls them while an
 * answer comes: on behalf of the socket, that is, in nobody's transaction.
 */
export function callBack(query: RawQuery, inside: <R>(fn: () => R) => R): void {
  const { forEachFn, cursorFn, resolve } = query
  if (forEachFn) query.forEachFn = (...values) => inside(() => forEachFn(...values))
  if (cursorFn) query.cursorFn = (...values) => inside(() => cursorFn(...values))
  settleBy(query, {
    resolve: (value) => {
      if (emits(value)) {
        const emit = value.emit.bind(value)
        value.emit = (...values) => inside(() => emit(...values))
      }
      resolve(value)
    },
  })
}

function emits(value: unknown): value is Emitting {
  return typeof value === 'object' && value !== null && 'emit' in value && typeof value.emit === 'function'
}
