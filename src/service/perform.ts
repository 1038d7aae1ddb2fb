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

/** What calls wait for: the names of a module's exports do not change then, though their values may. */
interface Ready {
  readonly pool: PostgresPool
  readonly tasks: Record<string, unknown>
  readonly names: ReadonlySet<string>
}

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
  /** Both, once they are there. */
  ready?: Ready
}

/** Runs one call of a task in this thread, and says what it tells, and what comes of it. Never rejects. */
export async function perform(call: TaskCall, house: TaskHouse): Promise<void> {
  const abortable = new Abortable(call.words, house.thread)
  let progress: ProgressSender | undefined
  const tell = (value: unknown): void => (progress ??= progressOf(call, house)).send(value)
  let reply: TaskReply
  try {
    let value: unknown
    // A call of none is there to load them.
    if (call.exported === undefined) await house.tasks
    else {
      abortable.throwIfAborted()
      house.ready ??= await readyOf(house)
      value = await run(call, call.exported, house, house.ready, abortable, tell)
    }
    reply = { ok: true, value: pack(value, transferOf(value)) }
  } catch (error) {
    reply = { ok: false, error: toWire(error) }
  }
  abortable.end()
  try {
    progress?.end()
  } catch (error) {
    if (reply.ok) reply = { ok: false, error: toWire(error) }
  }
  postReply(call, house, reply)
}

async function readyOf(house: TaskHouse): Promise<Ready> {
  const pool = await house.pool
  const tasks = await house.tasks
  return { pool, tasks, names: new Set(Object.keys(tasks)) }
}

function run(
  { id, task: name, input }: TaskCall,
  exported: string,
  house: TaskHouse,
  { pool, tasks, names }: Ready,
  abortable: Abortable,
  tell: (value: unknown) => void,
): Promise<unknown> {
  if (exported === 'default' || !names.has(exported)) throw notFound(name, tasks, house.module)
  const task = tasks[exported]
  if (typeof task !== 'function') throw notFound(name, tasks, house.module)
  abortable.throwIfAborted()
  const runOther = (other: string, value?: unknown, options: RunOptions = {}): unknown => {
    return callTask(house.sender(id), other, value, { ...options, signal: either(options.signal, abortable.signal) })
  }
  const held = new TaskPool(name, pool, (message) => house.say({ type: 'warning', message }))
  return held.run(() => (task as Task)(unpack(input), new Context(pool, abortable, tell, runOther as Run<unknown>)))
}

/** A class: V8 never makes the getters of an object literal young, and they would keep the call, its input and all. */
class Context implements TaskContext {
  readonly pool: PostgresPool
  readonly progress: (value: unknown) => void
  readonly transfer = transfer
  readonly run: Run<unknown>
  readonly throwIfAborted: () => void
  readonly #abortable: Abortable

  constructor(pool: PostgresPool, abortable: Abortable, progress: (value: unknown) => void, runOther: Run<unknown>) {
    const throwIfAborted = (): void => abortable.throwIfAborted()
    this.pool = pool
    this.progress = progress
    this.run = runOther
    this.throwIfAborted = throwIfAborted
    this.#abortable = abortable
  }

  get signal(): AbortSignal {
    return this.#abortable.signal
  }

  get aborted(): boolean {
    return this.#abortable.aborted
  }
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

function notFound(name: string, tasks: Record<string, unknown>, module: string): TaskError {
  const names = Object.keys(tasks).filter((one) => one !== 'default' && typeof tasks[one] === 'function')
  return new TaskError(name, `There is no task "${name}": ${module} exports ${names.join(', ') || 'none'}.`)
}
