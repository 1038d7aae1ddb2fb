import type { Clock } from '../clock.ts'
import type { Watch } from '../watch.ts'
import { settleBy } from './query.ts'
import type { RawQuery } from './query.ts'

interface Details {
  readonly watch: Watch
  readonly clock: Clock
  /** Whether the text of a statement is told. */
  readonly queryText: boolean
}

/** Tells whoever listens how the queries of one pool went. Costs nothing but a look while nobody does. */
export class QueryEvents {
  readonly #details: Details

  constructor(details: Details) {
    this.#details = details
  }

  /** A query is run. What this returns is to be called once its deadline has been set. */
  begin(query: RawQuery): (() => void) | undefined {
    return this.#details.watch.hearsQueries ? follow(query, this.#details) : undefined
  }
}

/** Until its answer is complete, which is later than when its promise settles if it is a cursor's or a COPY's. */
function follow(query: RawQuery, { watch, clock, queryText }: Details): () => void {
  const startedAt = clock.now()
  const { resolve, reject, cursorFn } = query
  let connection: string | undefined
  let sentAt: number | undefined
  let answer: Answer = {}
  let code: string | undefined
  let portions: number | undefined
  let told = false
  const tell = (): void => {
    if (told) return
    told = true
    const endedAt = clock.now()
    watch.tell('millpond:query', () => ({
      connection,
      durationMs: endedAt - startedAt,
      waitedMs: (sentAt ?? endedAt) - startedAt,
      rows: code === undefined ? (portions ?? answer.rows) : undefined,
      command: code === undefined ? answer.command : undefined,
      code,
      ...(queryText ? { text: query.string } : {}),
    }))
  }
  settleBy(query, {
    resolve: (value) => {
      answer = query.streaming ? { command: 'COPY' } : answerOf(value)
      resolve(value)
    },
    reject: (error) => {
      code ??= shortly(error)
      // Otherwise the connection tells when it is done with it.
      if (!query.runsOn) tell()
      reject(error)
    },
  })
  if (cursorFn) {
    query.cursorFn = (rows) => {
      portions = (portions ?? 0) + (Array.isArray(rows) ? rows.length : 0)
      return cursorFn(rows)
    }
  }
  return () => {
    const { watch: deadline } = query
    query.watch = {
      sent(tag) {
        connection = tag
        sentAt = clock.now()
      },
      stop() {
        deadline?.stop()
        tell()
      },
    }
  }
}

interface Answer {
  readonly rows?: number | undefined
  readonly command?: string | undefined
}

/** What postgres.js makes of an answer: rows with `count` and `command`, or an array of those, for several statements. */
function answerOf(value: unknown): Answer {
  if (typeof value !== 'object' || value === null) return {}
  if ('command' in value && typeof value.command === 'string') {
    const { command } = value
    return { command, rows: 'count' in value && typeof value.count === 'number' ? value.count : undefined }
  }
  if (!Array.isArray(value) || value.length === 0) return {}
  const answers = value.map(answerOf)
  return {
    command: answers.map(({ command }) => command).join('; '),
    rows: answers.reduce((sum, { rows = 0 }) => sum + rows, 0),
  }
}

/** The code of an error, its name where it has none. */
function shortly(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown'
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name
}
