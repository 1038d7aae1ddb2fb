import { workerData } from 'node:worker_threads'
import type { ServerData } from '../src/service/server-messages.ts'
import { watchThread } from '../src/service/watch-thread.ts'

// The entry point of a server's thread. What is to watch the thread is there before what it watches.

const data = workerData as ServerData

async function begin(): Promise<void> {
  if (data.instrument !== undefined) await import(data.instrument)
  watchThread(data, { role: 'server', name: data.name, index: data.index })
  const { runServer } = await import('../src/service/server-thread.ts')
  runServer()
}

void begin()
