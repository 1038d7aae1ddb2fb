import { whileBorrowing } from '../borrowing.ts'
import type { Borrowed, Borrower, Lent } from '../borrowing.ts'
import { LeaseRevokedError } from '../errors.ts'
import type { PostgresPool } from '../postgres/index.ts'

interface Held {
  readonly lease: Borrowed
  readonly since: number
  /** A cursor's or a COPY's. */
  readonly streams: boolean
  /** Who has asked for it. It is written out only if somebody is to read it. */
  readonly here: { readonly stack?: string }
}

/** A cursor and a COPY are over some time before their connection is free. */
const streamGraceMs = 1_000

/**
 * What one task has of its thread's pool: what it has acquired, in whatever way, and not given back when it ends is taken
 * from it. Single queries end by themselves. What listens is the pool's own. After the end nothing more is looked at, since
 * a module may go on with what it began in a task.
 */
export class TaskPool implements Borrower {
  readonly #task: string
  readonly #pool: PostgresPool
  // Most tasks have none of both.
  #running: Set<Promise<unknown>> | undefined
  #held: Set<Held> | undefined
  readonly #warn: (message: string) => void
  #ended = false

  /** `warn` is told of what was left behind. */
  constructor(task: string, pool: PostgresPool, warn: (message: string) => void) {
    this.#task = task
    this.#warn = warn
    this.#pool = pool
  }

  /** Runs the task. What it leaves behind is on its way back when this settles. */
  async run<R>(fn: () => R | PromiseLike<R>): Promise<R> {
    try {
      return await whileBorrowing<R | PromiseLike<R>>(this, fn)
    } finally {
      this.#end()
    }
  }

  get running(): Set<Promise<unknown>> {
    return (this.#running ??= new Set())
  }

  asks(pool: object, stream: string | undefined): Lent | undefined {
    if (this.#ended || pool !== this.#pool) return undefined
    const here = stream ? { stack: stream } : stackHere()
    const streams = stream !== undefined
    return (lease) => {
      if (!this.#ended) return this.#hold({ lease, here, since: performance.now(), streams })
      void lease.release()
      throw new LeaseRevokedError(this.#pool.name, 0, `the task "${this.#task}" that acquired it has ended`)
    }
  }

  get #reason(): string {
    return `the task "${this.#task}" has ended`
  }

  #hold(held: Held): void {
    // Those that are over are not kept for long by a task that acquires in a loop.
    const all = (this.#held ??= new Set())
    if (all.size >= 64) for (const other of all) if (other.lease.released) all.delete(other)
    all.add(held)
  }

  #end(): void {
    this.#ended = true
    // What was not awaited fails now, and nobody hears of that: a rejection that is nobody's would end the thread.
    for (const promise of this.#running ?? []) promise.catch(() => undefined)
    if (!this.#held) return
    const streams: Held[] = []
    for (const held of this.#held) {
      if (held.streams && !held.lease.released) streams.push(held)
      else this.#take(held)
    }
    this.#held = undefined
    if (streams.length > 0) setTimeout(() => streams.forEach((held) => this.#take(held)), streamGraceMs).unref()
  }

  #take({ lease, here, since }: Held): void {
    if (lease.released) return
    const heldMs = Math.round(performance.now() - since)
    this.#warn(
      `The task "${this.#task}" has ended without releasing a lease of "${this.#pool.name}" (held for ${heldMs} ms); it is revoked. It was acquired here:\n${framesOf(here.stack)}`,
    )
    void lease.destroy(this.#reason)
  }
}

/** A transaction asks from deep inside of the pool. */
const frames = 30

function stackHere(): Error {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = frames
  const error = new Error()
  Error.stackTraceLimit = stackTraceLimit
  return error
}

const ours = new URL('../', import.meta.url).href

/** The stack from where the pool was called. */
function framesOf(stack = ''): string {
  const all = stack.split('\n').slice(1)
  return all.filter((line) => !line.includes(ours)).join('\n') || all.join('\n')
}
