// The entry point of a task worker, whose export Piscina calls once. What is to watch the thread is there before what it
// watches.
//
// Piscina gets it by `require`. An ES module would be loaded by that with all that it imports, and Node.js 20 and 22 abort
// the whole process if a thread is ended in the middle of such a load. `import` does no harm.

type Task = (typeof import('./task.ts'))['default']

const begun = begin()
// It is looked at with the first task.
begun.catch(() => undefined)

async function begin(): Promise<Task> {
  const { workerData } = await import('node:worker_threads')
  const data = workerData as import('../src/service/thread.ts').TaskThreadData
  if (data.instrument !== undefined) await import(data.instrument)
  const { watchThread } = await import('../src/service/watch-thread.ts')
  watchThread(data, { role: 'tasks', name: data.group })
  const task = await import('./task.ts')
  return task.default
}

module.exports = async (call: Parameters<Task>[0]): Promise<number> => (await begun)(call)
