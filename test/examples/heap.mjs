// Loaded before an example with `node --expose-gc --import`: writes how much each thread's heap had in use at the most,
// after the garbage was collected, to a file of its own in the folder HEAP_FOLDER.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { threadId } from 'node:worker_threads'

const file = join(process.env.HEAP_FOLDER, String(threadId))
let peak = 0

setInterval(() => {
  globalThis.gc()
  const { heapUsed, external } = process.memoryUsage()
  if (heapUsed + external <= peak) return
  peak = heapUsed + external
  writeFileSync(file, String(peak))
}, 50).unref()
