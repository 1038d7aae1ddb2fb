import { workerData } from 'node:worker_threads'
import type { MessagePort, Transferable } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { TaskError } from '../errors.ts'
import { callTask } from './call.ts'
import type { Parcel, TaskReply } from './parcel.ts'
import type { Send } from './job.ts'
import type { RunOptions, TaskRun } from './modules.ts'
import { introduce } from './thread.ts'
import type { FromThread, ThreadData, ToThread } from './thread.ts'
import { toWire } from './wire.ts'

interface Call {
  readonly task: string
  readonly reply: Deferred<TaskReply>
  readonly tell: (value: Parcel) => void
}

/** Calls tasks from a thread that has no task workers of its own: the service's thread passes them on. */
export class TaskCaller {
  readonly #port: MessagePort
  readonly #calls = new Map<number, Call>()
  #ids = 0
  /** Why the service is not there any more. */
  #gone: { readonly cause: unknown } | undefined

  constructor(port: MessagePort, known: Promise<void>) {
    this.#port = port
    known.catch((error: unknown) => this.#fail(error))
    port.once('close', () => this.#fail(undefined))
  }

  /** `parent` is the id of the task that calls. */
  sender(parent: number | undefined): Send {
    return ({ task, input, words, priority }, tell) => {
      if (this.#gone) throw unreachable(task, this.#gone.cause)
      const id = ++this.#ids
      const reply = deferred<TaskReply>()
      this.#say({ type: 'run', id, task, input, words, priority, parent }, input.transfer)
      this.#calls.set(id, { task, reply, tell })
      void reply.promise.then(() => this.#calls.delete(id))
      return { reply: reply.promise, giveUp: () => this.#say({ type: 'give up', id }) }
    }
  }

  hear(message: Exclude<ToThread, { type: 'close' }>): void {
    const call = this.#calls.get(message.id)
    if (message.type === 'progress') call?.tell(message.value)
    else call?.reply.resolve(message.reply)
  }

  #say(message: FromThread, transfer: readonly Transferable[] = []): void {
    this.#port.postMessage(message, transfer)
  }

  #fail(cause: unknown): void {
    this.#gone ??= { cause }
    for (const { task, reply } of this.#calls.values()) {
      reply.resolve({ ok: false, error: toWire(unreachable(task, cause)) })
    }
  }
}

function unreachable(task: string, cause: unknown): TaskError {
  const message = `Cannot run "${task}": the thread that runs the service does not answer any more.`
  return new TaskError(task, message, cause === undefined ? undefined : { cause })
}

/** Calls tasks from a server's thread, which introduces itself with the first one. */
export class RunClient {
  #caller: TaskCaller | undefined

  readonly run = (task: string, input?: unknown, options?: RunOptions): TaskRun<unknown> => {
    this.#caller ??= connect(workerData as ThreadData)
    return callTask(this.#caller.sender(undefined), task, input, options)
  }
}

function connect({ service, home, url, pool }: ThreadData): TaskCaller {
  const { port, known } = introduce({ service, home, url, pool })
  const caller = new TaskCaller(port, known)
  port.on('message', (message: ToThread) => {
    if (message.type !== 'close') caller.hear(message)
  })
  port.unref()
  return caller
}
