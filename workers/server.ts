import { workerData } from 'node:worker_threads'
import type { ServerData } from '../src/service/server-messages.ts'

// The entry point of a server's thread. What is to watch the thread is there before what it watches.

const { instrument } = workerData as ServerData

async function begin(): Promise<void> {
  if (instrument !== undefined) await import(instrument)
  const { runServer } = await import('../src/service/server-thread.ts')
  runServer()
}

void begin()
