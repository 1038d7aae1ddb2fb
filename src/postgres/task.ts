import type { Linked } from '../deque.ts'
import type { RawQuery } from './query.ts'
import type { Trace } from './reset.ts'

/** How a query is run. */
export interface RunOptions {
  /** Called once, when the wire is quiet again after the query, or the query will not be sent (any more). */
  done?: () => void
  /** The pool's own: its traces are not the lease's. */
  own?: boolean
}

/** Readable or writable: this much of it matters here. */
export interface CopyStream {
  readonly destroyed: boolean
  destroy(error: Error): unknown
  on(event: 'error', listener: () => void): unknown
}

/** One query on its way through a connection. */
export class Task implements Linked<Task> {
  readonly query: RawQuery
  readonly own: boolean
  readonly done: () => void
  /** Some of it has been written. Before that, a quiet wire says nothing. */
  wrote = false
  retried = false
  cancelling = false
  trace: Trace = 'nothing'
  /** What a COPY has handed out. */
  stream: CopyStream | undefined

  next: Task | undefined
  previous: Task | undefined
  deque: object | undefined

  constructor(query: RawQuery, { done = nothing, own = false }: RunOptions) {
    this.query = query
    this.done = done
    this.own = own
  }
}

function nothing(): void {}
