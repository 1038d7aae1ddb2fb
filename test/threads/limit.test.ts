import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createService, taskModule } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Counting } from './counting.ts'
import { Thread } from './thread.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

describe('one limit over all threads', () => {
  test.each([10, 5, 3])(
    'limit %i: the server never counts more, with 4 threads × 16 tasks and others that join, leave and die',
    async (limit) => {
      await using counting = new Counting(database.admin, database.name)
      await using service = createService<typeof import('./fixtures/tasks.mjs')>({
        url: database.url,
        limit: { name: `limit ${limit}`, connections: limit },
        tasks: {
          module: taskModule(new URL('./fixtures/tasks.mjs', import.meta.url)),
          workers: 4,
          concurrency: 16,
        },
        signals: false,
      })
      await service.start()
      const tasks = Array.from({ length: 64 }, async () => {
        for (let i = 0; i < 8; i++) expect(await service.run('query', { ms: 3 })).toBe(1)
      })
      const passersBy = async (): Promise<void> => {
        for (let i = 0; i < 6; i++) {
          const thread = new Thread(database.url, { limit: { name: `limit ${limit}`, connections: limit }, max: 4 })
          await thread.tell('work', { times: 12, concurrency: 4, ms: 3 })
          if (i % 2 === 0) await thread.tell('close')
          else await thread.tell('lease', 1)
          await thread.terminate()
        }
      }
      await Promise.all([...tasks, passersBy()])
      expect(service.pool.stats().broker?.limit).toBe(limit)
      await service.close()
      const { peak, samples } = await counting.stop()
      expect(samples).toBeGreaterThan(50)
      expect(peak).toBeLessThanOrEqual(limit)
      // It was not met because nobody ever came near it.
      expect(peak).toBeGreaterThanOrEqual(limit - 1)
      await database.sessionsToBe(0)
    },
  )

  test('a thread that never used its pool costs no connection, whatever its min', async () => {
    const { createBroker } = await import('millpond')
    await using broker = createBroker({ name: 'unused', limit: 5 })
    const thread = new Thread(database.url, { broker: broker.name, min: 3 })
    const stats = await thread.stats()
    expect(stats).toMatchObject({ open: 0, opening: 0 })
    expect(broker.stats().members).toHaveLength(0)
    expect(await database.sessions()).toEqual([])
  })

  test('a pool in a nested thread joins the broker that its grandparent made', async () => {
    const { createBroker } = await import('millpond')
    await using broker = createBroker({ name: 'nested', limit: 2 })
    const outer = new Worker(new URL('./fixtures/nested.mjs', import.meta.url), {
      workerData: { url: database.url, pool: { broker: broker.name } },
    })
    try {
      await new Promise((resolve, reject) => {
        outer.once('message', resolve)
        outer.once('error', reject)
      })
      expect(broker.stats().members).toMatchObject([{ held: 1 }])
    } finally {
      await outer.terminate()
    }
  })
})
