import { workerData } from 'node:worker_threads'
import { TaskError } from '../src/errors.ts'
import { createPool } from '../src/postgres/index.ts'
import { Abortable } from '../src/service/abort.ts'
import type { TaskContext } from '../src/service/modules.ts'
import { introduce } from '../src/service/thread.ts'
import type { TaskCall, TaskThreadData } from '../src/service/thread.ts'
import { canCross, toWire } from '../src/service/wire.ts'
import type { Reply } from '../src/service/wire.ts'

// The entry point of a task worker: Piscina calls the default export once per task.

type Task = (input: unknown, context: TaskContext) => unknown

const data = workerData as TaskThreadData
const pool = createPool(data.url, data.pool)
const port = introduce(data)

// The service closes: the pool goes before the thread does, so that its permits come back at once.
port.on('message', () => {
  void pool.close().then(() => port.close())
})
port.unref()

let loading: Promise<Record<string, unknown>> | undefined

/** Runs one task. Never rejects: what Piscina carries of an error is too little. */
export default async function handle(call: TaskCall): Promise<Reply> {
  const abortable = new Abortable(call.abort)
  try {
    const tasks = await load()
    if (call.task === undefined) return { ok: true, value: undefined }
    const task = find(tasks, call.task)
    abortable.throwIfAborted()
    const value = await task(call.input, {
      pool,
      get signal() {
        return abortable.signal
      },
      get aborted() {
        return abortable.aborted
      },
      throwIfAborted: () => abortable.throwIfAborted(),
    })
    if (!canCross(value)) {
      throw new TaskError(
        call.task,
        `The task "${call.task}" returned something that cannot cross threads: ${kindOf(value)}.`,
      )
    }
    return { ok: true, value }
  } catch (error) {
    return { ok: false, error: toWire(error) }
  } finally {
    abortable.end()
  }
}

function load(): Promise<Record<string, unknown>> {
  loading ??= import(data.module).catch((cause: unknown) => {
    throw new TaskError('', `The module of tasks cannot be loaded: ${String(cause)}`, { cause })
  }) as Promise<Record<string, unknown>>
  return loading
}

function find(tasks: Record<string, unknown>, name: string): Task {
  const task = Object.hasOwn(tasks, name) && name !== 'default' ? tasks[name] : undefined
  if (typeof task === 'function') return task as Task
  const names = Object.keys(tasks).filter((one) => one !== 'default' && typeof tasks[one] === 'function')
  throw new TaskError(name, `There is no task "${name}": ${data.module} exports ${names.join(', ') || 'none'}.`)
}

function kindOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return `a ${typeof value}`
  const member = Object.entries(value).find(([, one]) => !canCross(one))
  const name: unknown = value.constructor?.name
  return `${typeof name === 'string' ? name : 'an object'}${member ? `, because of its "${member[0]}"` : ''}`
}
