import { threadId, workerData } from 'node:worker_threads'
import type { Transferable } from 'node:worker_threads'
import { TaskError, messageOf } from '../src/errors.ts'
import type { PostgresPool } from '../src/postgres/index.ts'
import { Abortable } from '../src/service/abort.ts'
import { callTask, isCloneError } from '../src/service/call.ts'
import { culpritIn, pack, unpack } from '../src/service/clone.ts'
import { openPool } from '../src/service/define-pool.ts'
import type { Run, RunOptions, TaskContext } from '../src/service/modules.ts'
import { ProgressSender } from '../src/service/progress.ts'
import { TaskCaller } from '../src/service/run-client.ts'
import { TaskPool } from '../src/service/task-pool.ts'
import { introduce } from '../src/service/thread.ts'
import type { FromThread, TaskCall, TaskThreadData, ToThread } from '../src/service/thread.ts'
import { transfer, transferOf } from '../src/service/transfer.ts'
import { toWire } from '../src/service/wire.ts'
import type { TaskReply } from '../src/service/wire.ts'

// The entry point of a task worker: Piscina calls the default export once per task.

type Task = (input: unknown, context: TaskContext) => unknown

const data = workerData as TaskThreadData
const { port, known } = introduce(data)
const caller = new TaskCaller(port, known)
const opened = openPool(data.url, data.pool)
const loaded = load()
// They are looked at with the first task.
for (const promise of [known, opened, loaded]) promise.catch(() => undefined)

port.on('message', (message: ToThread) => {
  if (message.type === 'close') void close()
  else caller.hear(message)
})
port.unref()

/**
 * Runs one task, and tells Piscina only which thread has: the reply goes another way, where one that cannot cross is seen
 * in time. Rejects if the service cannot be reached.
 */
export default async function handle(call: TaskCall): Promise<number> {
  await known
  const abortable = new Abortable(call.words)
  const progress = new ProgressSender(call.words, (value) => postProgress(call, value))
  let reply: TaskReply
  try {
    const value = call.exported === undefined ? await loaded : await perform(call, call.exported, abortable, progress)
    reply = { ok: true, value: pack(call.exported === undefined ? undefined : value, transferOf(value)) }
  } catch (error) {
    reply = { ok: false, error: toWire(error) }
  }
  abortable.end()
  progress.end()
  postReply(call, reply)
  return threadId
}

async function perform(
  { id, task: name, input }: TaskCall,
  exported: string,
  abortable: Abortable,
  progress: ProgressSender,
): Promise<unknown> {
  abortable.throwIfAborted()
  const pool = new TaskPool(name, await opened, (message) => say({ type: 'warning', message }))
  const task = find(await loaded, name, exported)
  abortable.throwIfAborted()
  const run = (other: string, value?: unknown, options: RunOptions = {}): unknown => {
    const signal = options.signal ? AbortSignal.any([options.signal, abortable.signal]) : abortable.signal
    return callTask(caller.sender(id), other, value, { ...options, signal })
  }
  try {
    return await task(unpack(input), {
      pool: pool.pool,
      get signal() {
        return abortable.signal
      },
      get aborted() {
        return abortable.aborted
      },
      throwIfAborted: () => abortable.throwIfAborted(),
      progress: (value) => progress.send(value),
      transfer,
      run: run as Run<unknown>,
    })
  } finally {
    pool.end()
  }
}

function postProgress({ id, task }: TaskCall, value: unknown): void {
  const parcel = pack(value)
  try {
    say({ type: 'progress', id, value: parcel })
  } catch (cause) {
    throw new TaskError(
      task,
      `The task "${task}" told something as its progress that cannot cross threads: ${culpritIn(parcel.value)}.`,
      { cause },
    )
  }
}

function postReply({ id, task }: TaskCall, reply: TaskReply): void {
  try {
    say({ type: 'reply', id, reply }, reply.ok ? reply.value.transfer : undefined)
  } catch (cause) {
    const { value, transfer: list } = reply.ok ? reply.value : { value: undefined, transfer: undefined }
    const why = isCloneError(cause) ? culpritIn(value, list) : messageOf(cause)
    const message = `The task "${task}" returned something that cannot cross threads: ${why}.`
    say({ type: 'reply', id, reply: { ok: false, error: toWire(new TaskError(task, message, { cause })) } })
  }
}

function say(message: FromThread, list: readonly Transferable[] = []): void {
  port.postMessage(message, list)
}

/** The service closes: the pool goes before the thread does, so that its permits come back at once. */
async function close(): Promise<void> {
  const pool: PostgresPool | undefined = await opened.catch(() => undefined)
  await pool?.close()
  port.close()
}

function load(): Promise<Record<string, unknown>> {
  return import(data.module).catch((cause: unknown) => {
    throw new TaskError('', `The module of tasks cannot be loaded: ${String(cause)}`, { cause })
  }) as Promise<Record<string, unknown>>
}

function find(tasks: Record<string, unknown>, name: string, exported: string): Task {
  const task = Object.hasOwn(tasks, exported) && exported !== 'default' ? tasks[exported] : undefined
  if (typeof task === 'function') return task as Task
  const names = Object.keys(tasks).filter((one) => one !== 'default' && typeof tasks[one] === 'function')
  throw new TaskError(name, `There is no task "${name}": ${data.module} exports ${names.join(', ') || 'none'}.`)
}
