import type { Linked } from '../deque.ts'
import type { RawQuery } from './query.ts'
import type { Trace } from './reset.ts'

/** How a query is run. */
export interface RunOptions {
  /** Called once, when the wire is quiet again after the query, or the query will not be sent (any more). */
  done?: () => void
  /** Called once it has been asked to stop: its answer is of no use to anybody any more. */
  stopped?: () => void
  /** The pool's own: its traces are not the lease's. */
  own?: boolean
  /** The user has asked for it in other words (BEGIN, LISTEN): the option `debug` hears of it, though it is our own. */
  told?: boolean
}

/** Readable or writable: this much of it matters here. */
export interface CopyStream {
  readonly destroyed: boolean
  destroy(error: Error): unknown
  on(event: 'error' | 'close', listener: () => void): unknown
}

/** What becomes of the stream of a COPY. */
export interface StreamListener {
  /** It is handed to its user. */
  opened(task: Task): void
  /** It has ended, or was destroyed. */
  closed(task: Task): void
}

/** One query on its way through a connection. */
export class Task implements Linked<Task> {
  readonly query: RawQuery
  readonly own: boolean
  readonly told: boolean
  readonly #done: () => void
  readonly stopped: () => void
  /** Some of it has been written. Before that, a quiet wire says nothing. */
  wrote = false
  retried = false
  cancelling = false
  /** As what it was sent before it was its turn. */
  ahead: Buffer | undefined
  /** A request to cancel what was before it may have hit it. */
  mayBeHit = false
  /** `again`: its error was none of its own, and it has had no effect; `alone`: so it runs once more, with nothing behind it. */
  turn: 'first' | 'again' | 'alone' = 'first'
  trace: Trace = 'nothing'
  /** What a COPY has handed out. */
  stream: CopyStream | undefined
  /** Its reader has left that. */
  left = false

  next: Task | undefined
  previous: Task | undefined
  deque: object | undefined

  constructor(query: RawQuery, { done = nothing, stopped = nothing, own = false, told = !own }: RunOptions) {
    this.query = query
    this.#done = done
    this.stopped = stopped
    this.own = own
    this.told = told
  }

  done(): void {
    this.query.watch?.stop()
    this.#done()
  }
}

function nothing(): void {}
