import { threadId, workerData } from 'node:worker_threads'
import type { Transferable } from 'node:worker_threads'
import { TaskError } from '../src/errors.ts'
import type { PostgresPool } from '../src/postgres/index.ts'
import { receivedWords } from '../src/service/abort.ts'
import { openPool } from '../src/service/define-pool.ts'
import { perform } from '../src/service/perform.ts'
import type { TaskHouse } from '../src/service/perform.ts'
import { TaskCaller } from '../src/service/run-client.ts'
import type { SentCall } from '../src/service/task-seat.ts'
import { introduce } from '../src/service/thread.ts'
import type { FromThread, TaskCall, TaskThreadData, ToThread } from '../src/service/thread.ts'

// A task worker, once it is watched: its default export is called once, and from then on calls come through the port.

const data = workerData as TaskThreadData
const { port, known } = introduce(data)
const caller = new TaskCaller(port, known)
const opened = openPool(data.url, data.pool)
const loaded = load()
// They are looked at with the first task.
for (const promise of [known, opened, loaded]) promise.catch(() => undefined)

let memory: ArrayBufferLike | undefined

// What has no type is a call.
port.on('message', (message: ToThread | SentCall) => {
  if (!('type' in message)) {
    const words = receivedWords(message.words, memory)
    memory = words.buffer
    void perform({ ...message, words }, house)
  } else if (message.type === 'close') void close()
  else caller.hear(message)
})
port.unref()

const house: TaskHouse = {
  thread: threadId,
  pool: opened,
  tasks: loaded,
  module: data.module,
  sender: (id) => caller.sender(id),
  say: (message: FromThread, list: readonly Transferable[] = []) => port.postMessage(message, list),
}

/** Loads the module, and tells which thread has. Rejects if the service cannot be reached. */
export default async function handle(call: TaskCall): Promise<number> {
  await known
  await perform(call, house)
  return threadId
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
