import type { Transferable } from 'node:worker_threads'
import { deferred } from '../deferred.ts'
import type { PostgresPool } from '../postgres/index.ts'
import type { Parcel, TaskReply } from '../service/parcel.ts'
import type { Send } from '../service/job.ts'
import { perform } from '../service/perform.ts'
import type { FromThread } from '../service/thread.ts'

/** No thread of a service has this id. */
const here = -1

/** Runs tasks in this thread as a worker does, with `structuredClone` in place of the way between threads. */
export class TasksHere {
  readonly #tasks: Promise<Record<string, unknown>>
  readonly #pool: Promise<PostgresPool>
  #ids = 0

  constructor(tasks: Record<string, unknown>, pool: PostgresPool) {
    this.#tasks = Promise.resolve(tasks)
    this.#pool = Promise.resolve(pool)
  }

  readonly send: Send = ({ task, input, words }, tell) => {
    const reply = deferred<TaskReply>()
    const say = (message: FromThread, list: readonly Transferable[] = []): void => {
      const arrived = cross(message, list)
      if (arrived.type === 'progress') tell(arrived.value)
      else if (arrived.type === 'reply') reply.resolve(arrived.reply)
      else if (arrived.type === 'warning') process.emitWarning(arrived.message, 'MillpondWarning')
    }
    const call = { id: ++this.#ids, task, exported: task, input: cross<Parcel>(input, input.transfer), words }
    const house = {
      thread: here,
      pool: this.#pool,
      tasks: this.#tasks,
      module: 'testContext({ tasks })',
      sender: () => this.send,
      say,
    }
    // Its caller goes on first, as with any other thread.
    queueMicrotask(() => void perform(call, house))
    return { reply: reply.promise, giveUp: () => {} }
  }
}

function cross<T>(value: T, list: readonly Transferable[] = []): T {
  return structuredClone(value, { transfer: [...list] as never[] })
}
