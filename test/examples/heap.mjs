// Loaded before an example with `node --expose-gc --import`: each thread writes how much of its heap is in use, once the
// garbage was collected, again and again into a file of its own in the folder HEAP_FOLDER.
import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { threadId } from 'node:worker_threads'

const file = join(process.env.HEAP_FOLDER, String(threadId))

setInterval(() => {
  globalThis.gc()
  const { heapUsed, external } = process.memoryUsage()
  appendFileSync(file, `${heapUsed + external}\n`)
}, 100).unref()
