import { Worker } from 'node:worker_threads'
import { createService, taskModule } from '../../src/service/index.ts'
import type * as tasks from './tasks.ts'

const taskMs = 5
/** So long before the measurement, and after it, it goes on as well. */
export const settleMs = 300

export type Scene =
  | 'nothing computes'
  | 'two bare worker_threads compute'
  | 'two task workers compute, without a pause'
  | 'two task workers compute, 5 ms for each task'

/** Each starts what computes, and resolves with what ends it. */
export const scenes: Readonly<Record<Scene, (url: string, ms: number) => Promise<() => Promise<unknown>>>> = {
  'nothing computes': async () => async () => undefined,

  'two bare worker_threads compute': async () => {
    const forever = 'for (let sum = 0; ; sum++) Math.imul(sum, 0x01000193)'
    const burning = [1, 2].map(() => new Worker(forever, { eval: true }))
    return () => Promise.all(burning.map((worker) => worker.terminate()))
  },

  'two task workers compute, without a pause': async (url, ms) => {
    const service = await start(url)
    const burning = [1, 2].map(() => service.run('burn', ms + 2 * settleMs))
    return async () => {
      await Promise.all(burning)
      await service.close()
    }
  },

  'two task workers compute, 5 ms for each task': async (url) => {
    const service = await start(url)
    let going = true
    // Some of them always wait.
    const burning = [1, 2, 3, 4].map(async () => {
      while (going) await service.run('burn', taskMs)
    })
    return async () => {
      going = false
      await Promise.all(burning)
      await service.close()
    }
  },
}

async function start(url: string) {
  const service = createService<typeof tasks>({
    url,
    limit: 4,
    signals: false,
    tasks: { module: taskModule<typeof tasks>(new URL('./tasks.js', import.meta.url)), workers: 2 },
  })
  await service.start()
  return service
}
