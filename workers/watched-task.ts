import { workerData } from 'node:worker_threads'
import type { TaskCall, TaskThreadData } from '../src/service/thread.ts'
import { watchThread } from '../src/service/watch-thread.ts'

// The entry point of a task worker, whose default export Piscina calls once. What is to watch the thread is there
// before what it watches.

const data = workerData as TaskThreadData
const begun = begin()
// It is looked at with the first task.
begun.catch(() => undefined)

async function begin(): Promise<(call: TaskCall) => Promise<number>> {
  if (data.instrument !== undefined) await import(data.instrument)
  watchThread(data, { role: 'tasks', name: data.group })
  const task = await import('./task.ts')
  return task.default
}

export default async function handle(call: TaskCall): Promise<number> {
  return (await begun)(call)
}
