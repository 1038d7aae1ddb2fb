import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { Program } from '../support/program.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

test(
  'nothing of a query, of one that waits or shares, of a lease or a transaction outlives the young generation',
  { timeout: 120_000 },
  async () => {
    const file = fileURLToPath(new URL('fixtures/young.mjs', import.meta.url))
    const program = new Program(['--expose-gc', '--no-opt', file], { env: { DATABASE_URL: db.url } })
    expect(await program.end(), program.stderr).toBe(0)
    const outlives = JSON.parse(program.stdout) as Record<string, number>
    // In bytes: 20 to 430, whichever version of Node it is, and more than 1,000 with one closure that is written down where
    // it is assigned to a property, which is never young, or with an object that is spread into another one. Each holds what
    // it can see: its query, with answer and all.
    for (const kind of ['query', 'waiting', 'sharing', 'lease', 'transaction'])
      expect(outlives[kind], kind).toBeLessThan(600)
  },
)
