import { readFile } from 'node:fs'
import type { PathOrFileDescriptor } from 'node:fs'
import { cursorOf } from './cursor.ts'
import type { Deadlines } from './deadlines.ts'
import { cancelUnsent } from './query.ts'
import type { Handler, QueryLimits, RawQuery, Target } from './query.ts'
import type { QueryEvents } from './query-events.ts'

/** What the queries of one tag have in common. */
export interface Manner {
  /** What a cursor's callback returns to end it. */
  readonly closing: unknown
  readonly deadlines: Deadlines | undefined
  readonly events: QueryEvents | undefined
  /** How long each of them may take. */
  readonly limits: QueryLimits | undefined
}

/** Aims queries of one maker at a target in place of the maker's own connections. */
export class Aim {
  readonly #handler: Handler
  readonly #canceller: (query: RawQuery) => void
  readonly #cursor: unknown
  readonly #target: Target
  readonly #manner: Manner

  constructor(target: Target, manner: Manner) {
    this.#target = target
    this.#manner = manner
    this.#cursor = cursorOf(manner.closing)
    const handler: Handler = (query) => {
      this.#watch(query)
      this.#run(query)
    }
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
    query.cursor = this.#cursor
    const { deadlines, limits } = this.#manner
    const made = deadlines?.limitsHere(limits)
    if (made) query.limits = made
  }

  /** The text is in a file, which is read when the query runs. */
  atWithFile(query: RawQuery, path: PathOrFileDescriptor): void {
    this.at(query)
    const handler: Handler = () => {
      this.#watch(query)
      readFile(path, 'utf8', (error, text) => {
        if (error) return query.reject(error)
        query.strings = [text]
        this.#run(query)
      })
    }
    handler.debug = this.#handler.debug
    query.handler = handler
  }

  #watch(query: RawQuery): void {
    if (query.cancelled) return
    this.#target.hold?.(query)
    const attend = this.#manner.events?.begin(query)
    if (query.limits) this.#manner.deadlines?.watch(query, this.#canceller, this.#target)
    attend?.()
  }

  // A cancelled query that is handed over would block its connection for ever.
  #run(query: RawQuery): void {
    if (!query.cancelled) this.#target.run(query)
  }
}
