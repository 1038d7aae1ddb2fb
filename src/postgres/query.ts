import { readFile } from 'node:fs'
import type { PathOrFileDescriptor } from 'node:fs'

/**
 * A query of postgres.js from inside: a promise that does nothing before somebody waits for it. Then it calls its
 * `handler`, once, with itself. The fields beyond the documented ones are those of version 3.4.
 */
export interface RawQuery extends Promise<unknown> {
  handler: Handler
  canceller: ((query: RawQuery) => unknown) | null
  strings: readonly string[]
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
  /** The text that was sent; from the hand-over on. */
  string?: string
  /** Handed over and not settled. An async iterator over a cursor looks at it to learn whether there is more. */
  active: boolean
  executed: boolean
  cancelled: unknown
  /** The error for which postgres.js sends a prepared statement a second time. */
  retried?: unknown
  cursorFn?: unknown
  /** Ours: the connection that has it. */
  runsOn?: { cancel(query: RawQuery): void }
  /** Runs it, if nothing has yet. */
  handle(): Promise<void>
}

export interface Handler {
  (query: RawQuery): void
  /** Makes queries note where they were made. */
  debug?: unknown
}

/** Where queries go. */
export interface Target {
  /** Takes the query to a connection. It may have been cancelled before it gets there. */
  run(query: RawQuery): void
  /** A query that has not got to a connection was cancelled. */
  left?(query: RawQuery): void
  readonly debug: unknown
}

/** Whether a call of the tag made a query, and not a helper for one. */
export function isQuery(made: unknown): made is RawQuery {
  return typeof made === 'object' && made !== null && 'canceller' in made && 'handler' in made
}

/** Aims queries of one maker at a target in place of the maker's own connections. */
export class Aim {
  readonly #handler: Handler
  readonly #canceller: (query: RawQuery) => void
  readonly #target: Target

  constructor(target: Target) {
    this.#target = target
    const handler: Handler = (query) => this.#run(query)
    handler.debug = target.debug
    this.#handler = handler
    this.#canceller = (query) => {
      if (query.runsOn) return query.runsOn.cancel(query)
      cancelUnsent(query)
      target.left?.(query)
    }
  }

  at(query: RawQuery): void {
    query.handler = this.#handler
    query.canceller = this.#canceller
  }

  /** The text is in a file, which is read when the query runs. */
  atWithFile(query: RawQuery, path: PathOrFileDescriptor): void {
    const handler: Handler = () => {
      readFile(path, 'utf8', (error, text) => {
        if (error) return query.reject(error)
        query.strings = [text]
        this.#run(query)
      })
    }
    handler.debug = this.#handler.debug
    query.handler = handler
    query.canceller = this.#canceller
  }

  // A cancelled query that is handed over would block its connection for ever.
  #run(query: RawQuery): void {
    if (!query.cancelled) this.#target.run(query)
  }
}

/** Ends a query that has not been handed over, as postgres.js does. */
export function cancelUnsent(query: RawQuery): void {
  query.cancelled = true
  const error = new Error('57014: canceling statement due to user request')
  query.reject(Object.assign(error, { code: '57014' }))
}

/**
 * A query is what it is from the moment it is handed over: its answer is read by what it was sent as, and one that
 * changed meanwhile would take the next one's.
 */
export function freeze(query: RawQuery): void {
  void Object.assign(query, frozen)
}

const frozen = { simple: late, cursor: late, describe: late, forEach: late, raw: late, values: late }

function late(): never {
  throw new Error('Cannot change a query that has been sent: call .values(), .cursor() … before it is awaited.')
}

function nothing(): void {}

/**
 * For a query whose connection is lost while its cursor waits for the reader to ask for more: `active` turned false
 * would look like the end of the rows.
 */
export function failNextPortion(query: RawQuery, error: Error): void {
  if (!query.cursorFn) return
  void Object.defineProperty(query, 'active', {
    get: () => {
      throw error
    },
    set: nothing,
  })
}
