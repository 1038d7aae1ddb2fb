import { readFile } from 'node:fs'
import type { PathOrFileDescriptor } from 'node:fs'
import { cursorOf } from './cursor.ts'
import type { Deadlines } from './deadlines.ts'
import { cancelUnsent } from './query.ts'
import type { Aiming, Give, QueryLimits, RawQuery, Target } from './query.ts'
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

/** Aims queries at a target, each when it is run. */
export class Aim implements Aiming {
  readonly #target: Target
  readonly #manner: Manner

  constructor(target: Target, manner: Manner) {
    this.#target = target
    this.#manner = manner
  }

  get debug(): unknown {
    return this.#target.debug
  }

  /** What holds for a query that is made here and now. */
  at(query: RawQuery): RawQuery {
    const { deadlines, limits } = this.#manner
    query.limits = deadlines?.limitsHere(limits)
    return query
  }

  start(query: RawQuery): void {
    this.#watch(query)
    this.#run(query)
  }

  cancel(query: RawQuery): void {
    if (query.runsOn) return query.runsOn.cancel(query)
    cancelUnsent(query)
    this.#target.left?.(query)
  }

  cursor(query: RawQuery, rows?: number | Give, give?: Give): unknown {
    return cursorOf(query, this.#manner.closing, rows, give)
  }

  #watch(query: RawQuery): void {
    if (query.cancelled) return
    this.#target.hold?.(query)
    const attend = this.#manner.events?.begin(query)
    if (query.limits) this.#manner.deadlines?.watch(query, this, this.#target)
    attend?.()
  }

  // A cancelled query that is handed over would block its connection for ever.
  #run(query: RawQuery): void {
    if (!query.cancelled) this.#target.run(query)
  }

  /** The same for a query whose text is in a file, which is read when it is run. */
  withFile(path: PathOrFileDescriptor): Aiming {
    return startedBy(this, (query) => {
      this.#watch(query)
      readFile(path, 'utf8', (error, text) => {
        if (error) return query.reject(error)
        query.strings = [text]
        this.#run(query)
      })
    })
  }
}

/** One like this, whose queries are started by `start`. */
export function startedBy(aim: Aiming, start: (query: RawQuery) => void): Aiming {
  return {
    start,
    cancel: (query) => aim.cancel(query),
    cursor: (query, rows, give) => aim.cursor(query, rows, give),
  }
}
