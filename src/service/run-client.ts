import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { TaskError } from '../errors.ts'
import { abort, createAbortWord } from './abort.ts'
import type { RunOptions } from './modules.ts'
import type { FromServer, ToServer } from './thread.ts'
import { fromWire } from './wire.ts'
import type { Reply } from './wire.ts'

/** Runs tasks from a thread that has no task workers of its own: the service's thread does it for it. */
export class RunClient {
  readonly #say: (message: FromServer) => void
  readonly #calls = new Map<number, Deferred<unknown>>()
  #ids = 0

  constructor(say: (message: FromServer) => void) {
    this.#say = say
  }

  readonly run = async (task: string, input?: unknown, { signal }: RunOptions = {}): Promise<unknown> => {
    signal?.throwIfAborted()
    const id = ++this.#ids
    const call = deferred<unknown>()
    const word = signal && createAbortWord()
    const onAbort = (): void => {
      if (word) abort(word)
      call.reject(signal?.reason)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#calls.set(id, call)
    try {
      try {
        this.#say({ type: 'run', id, task, input, abort: word })
      } catch (cause) {
        throw cannotCross(task, cause)
      }
      return await call.promise
    } finally {
      this.#calls.delete(id)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  answer({ id, reply }: Extract<ToServer, { type: 'reply' }>): void {
    const call = this.#calls.get(id)
    if (reply.ok) call?.resolve(reply.value)
    else call?.reject(fromWire(reply.error))
  }
}

/** The input of a task that structured clone refuses. */
export function cannotCross(task: string, cause: unknown): TaskError {
  return new TaskError(task, `The input of task "${task}" cannot cross threads: ${String(cause)}`, { cause })
}

/** What a reply says, as a function would: its value, or it throws. */
export function unwrap(reply: Reply, task: string): unknown {
  if (reply.ok) return reply.value
  const error = fromWire(reply.error)
  if (error instanceof Error) throw error
  throw new TaskError(task, `The task "${task}" threw something that is no error: ${String(error)}`, { cause: error })
}
