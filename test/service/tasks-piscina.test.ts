import { setEnvironmentData } from 'node:worker_threads'
import { fileURLToPath } from 'node:url'
import { Piscina } from 'piscina'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createPool } from 'millpond/postgres'
import { piscinaOptions } from 'millpond/service'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

test('piscinaOptions: workers of a Piscina of one’s own give idle connections to who needs them', async () => {
  setEnvironmentData('own piscina', database.url)
  const limit = { name: 'own piscina', connections: 2 }
  await using pool = createPool(database.url, { max: 2, limit, acquireTimeoutMs: 10_000 })
  await pool.open()
  const filename = fileURLToPath(new URL('./fixtures/tasks-own-piscina.mjs', import.meta.url))
  const piscina = new Piscina({ ...piscinaOptions, filename, minThreads: 2, maxThreads: 2 })
  try {
    for (let round = 0; round < 5; round++) {
      await Promise.all([piscina.run(undefined), piscina.run(undefined)])
      // Both permits are with workers that have nothing to do now.
      const leases = await Promise.all([pool.acquire(), pool.acquire()])
      expect((await database.sessions()).length).toBeLessThanOrEqual(2)
      await Promise.all(leases.map((lease) => lease.release()))
    }
  } finally {
    await piscina.destroy()
  }
})
