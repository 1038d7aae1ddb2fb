import type { Transferable } from 'node:worker_threads'
import { TaskError, messageOf } from '../errors.ts'
import type { PostgresPool } from '../postgres/index.ts'
import { Abortable } from './abort.ts'
import { callTask, either, isCloneError } from './call.ts'
import { culpritIn } from './clone.ts'
import { pack, unpack } from './parcel.ts'
import type { Send } from './job.ts'
import type { Run, RunOptions, TaskContext } from './modules.ts'
import { ProgressSender } from './progress.ts'
import { TaskPool } from './task-pool.ts'
import type { FromThread, TaskCall } from './thread.ts'
import { transfer, transferOf } from './transfer.ts'
import { toWire } from './wire.ts'
import type { Parcel, TaskReply } from './parcel.ts'

type Task = (input: unknown, context: TaskContext) => unknown

/** What the calls of one thread have in common. */
export interface TaskHouse {
  /** Tells its caller that a call has begun, and where. Not 0. */
  readonly thread: number
  readonly pool: Promise<PostgresPool>
  /** What the module of tasks exports, … */
  readonly tasks: Promise<Record<string, unknown>>
  /** … and how errors call it. */
  readonly module: string
  /** How the call of this id calls others. */
  readonly sender: (id: number) => Send
  /** Throws what structured clone throws. */
  readonly say: (message: FromThread, list?: readonly Transferable[]) => void
}

/** Runs one call of a task in this thread, and says what it tells, and what comes of it. Never rejects. */
export async function perform(call: TaskCall, house: TaskHouse): Promise<void> {
  const abortable = new Abortable(call.words, house.thread)
  const progress = progressOf(call, house)
  let reply: TaskReply
  try {
    let value: unknown
    // A call of none is there to load them.
    if (call.exported === undefined) await house.tasks
    else value = await run(call, call.exported, house, abortable, progress)
    reply = { ok: true, value: pack(value, transferOf(value)) }
  } catch (error) {
    reply = { ok: false, error: toWire(error) }
  }
  abortable.end()
  try {
    progress.end()
  } catch (error) {
    if (reply.ok) reply = { ok: false, error: toWire(error) }
  }
  postReply(call, house, reply)
}

async function run(
  { id, task: name, input }: TaskCall,
  exported: string,
  house: TaskHouse,
  abortable: Abortable,
  progress: ProgressSender,
): Promise<unknown> {
  abortable.throwIfAborted()
  const pool = await house.pool
  const task = find(await house.tasks, name, exported, house.module)
  abortable.throwIfAborted()
  const runOther = (other: string, value?: unknown, options: RunOptions = {}): unknown => {
    return callTask(house.sender(id), other, value, { ...options, signal: either(options.signal, abortable.signal) })
  }
  const held = new TaskPool(name, pool, (message) => house.say({ type: 'warning', message }))
  return held.run(() =>
    task(unpack(input), {
      pool,
      get signal() {
        return abortable.signal
      },
      get aborted() {
        return abortable.aborted
      },
      throwIfAborted: () => abortable.throwIfAborted(),
      progress: (value) => progress.send(value),
      transfer,
      run: runOther as Run<unknown>,
    }),
  )
}

function progressOf({ id, task, words }: TaskCall, { say }: TaskHouse): ProgressSender {
  const post = (value: Parcel): void => say({ type: 'progress', id, value })
  return new ProgressSender(words, post, (value, cause) => {
    const why = isCloneError(cause) ? culpritIn(value) : messageOf(cause)
    return new TaskError(task, `The task "${task}" told something as its progress that cannot cross threads: ${why}.`, {
      cause,
    })
  })
}

function postReply({ id, task }: TaskCall, { say }: TaskHouse, reply: TaskReply): void {
  try {
    say({ type: 'reply', id, reply }, reply.ok ? reply.value.transfer : undefined)
  } catch (cause) {
    const { value, transfer: list } = reply.ok ? reply.value : { value: undefined, transfer: undefined }
    const why = isCloneError(cause) ? culpritIn(value, list) : messageOf(cause)
    const message = `The task "${task}" returned something that cannot cross threads: ${why}.`
    say({ type: 'reply', id, reply: { ok: false, error: toWire(new TaskError(task, message, { cause })) } })
  }
}

function find(tasks: Record<string, unknown>, name: string, exported: string, module: string): Task {
  const task = Object.hasOwn(tasks, exported) && exported !== 'default' ? tasks[exported] : undefined
  if (typeof task === 'function') return task as Task
  const names = Object.keys(tasks).filter((one) => one !== 'default' && typeof tasks[one] === 'function')
  throw new TaskError(name, `There is no task "${name}": ${module} exports ${names.join(', ') || 'none'}.`)
}
