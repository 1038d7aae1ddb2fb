// A batch: a million rows are streamed from the server, computed on four threads and written back, in constant memory.
//
//   DATABASE_URL=postgres://… node docs/examples/batch/main.js --rows 1000000 --workers 4
import { parseArgs } from 'node:util'
import { createService, taskModule } from 'millpond/service'
import { progressBar } from './progress.js'
import { seed } from './seed.js'

/** @import { TaskModule } from 'millpond/service' */
/** @import { Person } from './tasks.js' */

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '1000000' }, workers: { type: 'string', default: '4' } },
})
const rows = Number(values.rows)
const workers = Number(values.workers)

/** @type {TaskModule<typeof import('./tasks.js')>} */
const module = taskModule(new URL('./tasks.js', import.meta.url))

const service = createService({
  url: process.env.DATABASE_URL,
  limit: workers + 1, // one to read, and one for each worker to write
  tasks: { module, workers },
  before: ({ pool }) => seed(pool, rows),
})
await service.start()

const startedAt = performance.now()
const draw = progressBar(rows)
let done = 0
let peak = { heap: 0, rss: 0 }

// The server is asked for more when there is room. Two portions for each worker are on their way, one that is computed and
// one to go on with: whoever is the slowest sets the pace, and nothing piles up.
const people = service.pool.sql`select id, email from example_people`.cursor(2_000)
const counts = service.runAll('tokenize', /** @type {AsyncIterable<Person[]>} */ (people), {
  concurrency: 2 * workers,
  order: 'completion',
})
for await (const count of counts) {
  done += count
  draw(done)
  const { heapUsed, rss } = process.memoryUsage()
  peak = { heap: Math.max(peak.heap, heapUsed), rss: Math.max(peak.rss, rss) }
}

const seconds = (performance.now() - startedAt) / 1_000
console.log(`${done} rows with ${workers} workers in ${seconds.toFixed(1)} s`)
console.log(`peak: ${mebibytes(peak.heap)} of heap in this thread, ${mebibytes(peak.rss)} in all (rss)`)
await service.close()

/** @param {number} bytes */
function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`
}
