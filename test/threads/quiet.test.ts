import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Runs a script in a process of its own, which has to end by itself. */
async function script(name: string, ...more: string[]): Promise<unknown> {
  const path = fileURLToPath(new URL(`./fixtures/${name}.mjs`, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [path, database.url, ...more], { timeout: 15_000 })
  return JSON.parse(stdout)
}

describe('a process', () => {
  test('ends by itself although a pool with idle connections, a broker and members are open', async () => {
    expect(await script('idle-pool')).toEqual({ idle: 2, members: 2 })
    await database.sessionsToBe(0)
  })

  test('has nothing left after close(): no socket, no timer, no port, no thread', async () => {
    const { sockets, before, after } = (await script('closed-pool')) as Record<string, unknown>
    expect(sockets).toBeGreaterThanOrEqual(2)
    expect(before).not.toHaveProperty('tcp')
    expect(after).toEqual(before)
  })

  test('does not end while a caller waits', async () => {
    expect(await script('waiting')).toEqual({ phase: 'permit' })
  })

  test.each([
    ['somebody', 0],
    ['nobody', 1],
  ])('ends by itself after a thread has died in it, with %s there to reap', async (who, limbo) => {
    expect(await script('bereaved', who)).toEqual({ held: 2 - limbo, limbo })
    if (limbo > 0) {
      // Nobody reaps for a process that is gone: the server has been asked to notice by itself.
      await database.admin`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${database.name}`
    }
    await database.sessionsToBe(0)
  })
})

describe('a thread', () => {
  test('ends by itself, with code 0, although its pool has idle connections', async () => {
    expect(await script('leaving')).toEqual({ codes: [0, 0, 0], limit: 2 })
    await database.sessionsToBe(0)
  })
})
