import { Piscina } from 'piscina'
import { createService, taskModule } from '../../src/service/index.ts'
import type * as tasks from './tasks.ts'
import type { UsualData } from './usual.ts'
import type { Work } from './work.ts'

/** Workers for tasks that compute and query. */
export interface Contender {
  run(work: Work): Promise<number>
  close(): Promise<unknown>
}

export const workers = 2
/** Tasks at a time on one worker: as many as a pool of the usual way has connections, so that none waits for one there. */
export const concurrency = 10

/** Queries on their way on one connection of ours at the same time. Of postgres.js, as it comes, up to 100 are. */
const pipelining = 8

/** One limit over all threads. */
async function millpond(url: string, limit: number): Promise<Contender> {
  const service = createService<typeof tasks>({
    url,
    limit,
    signals: false,
    pool: { pipelining },
    tasks: { module: taskModule<typeof tasks>(new URL('./tasks.js', import.meta.url)), workers, concurrency },
  })
  await service.start()
  return { run: (work) => service.run('computeAndQuery', work), close: () => service.close() }
}

/** The same workers without millpond, each with a postgres.js pool of its own. */
async function usual(url: string, max: number): Promise<Contender> {
  const workerData: UsualData = { url, max }
  const piscina = new Piscina({
    filename: new URL('./usual.js', import.meta.url).href,
    minThreads: workers,
    maxThreads: workers,
    concurrentTasksPerWorker: concurrency,
    workerData,
  })
  return { run: (work) => piscina.run(work) as Promise<number>, close: () => piscina.destroy() }
}

export type Name = 'millpond, 4' | 'millpond, 20' | 'usual, 2 × 10' | 'usual, 2 × 2'

export const contenders: Readonly<Record<Name, (url: string) => Promise<Contender>>> = {
  'millpond, 4': (url) => millpond(url, 4),
  'usual, 2 × 10': (url) => usual(url, 10),
  'usual, 2 × 2': (url) => usual(url, 2),
  'millpond, 20': (url) => millpond(url, 20),
}
