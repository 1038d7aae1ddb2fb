import postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { LimitError } from 'millpond'
import { createService, taskModule } from 'millpond/service'
import type { Service, ServiceOptions } from 'millpond/service'
import { rejection } from '../support/connection.ts'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { createRole } from '../support/role.ts'
import type { TestRole } from '../support/role.ts'
import { warnings } from './support.ts'

type Tasks = typeof import('./fixtures/tasks.mjs')

const tasks = taskModule<Tasks>(new URL('./fixtures/tasks.mjs', import.meta.url))

let database: TestDatabase
let names = 0

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

function create(role: TestRole, connections: number, options: Partial<ServiceOptions<Tasks>> = {}): Service<Tasks> {
  const limit = { name: `misfit ${++names}`, connections }
  return createService<Tasks>({
    url: role.url,
    limit,
    signals: false,
    tasks: { module: tasks, workers: 1 },
    ...options,
  })
}

test('Service.start() refuses a limit that can never be had, before anything is done under it', async () => {
  const role = await createRole(database, 3)
  const before = vi.fn<() => void>()
  const service = create(role, 4, { before })
  const error = await rejection(service.start())
  expect(error).toBeInstanceOf(LimitError)
  expect(error).toMatchObject({ code: 'ERR_LIMIT_MISFIT', limit: 4, most: 3 })
  expect(error.message).toContain(`alter role "${role.name}" connection limit 4`)
  expect(error.message).not.toContain(new URL(role.url).password)
  expect(before).not.toHaveBeenCalled()
  expect(service.pool.stats().phase).toBe('closed')
  expect(await role.sessions()).toEqual([])
})

test('Service.start() warns of a limit of which others have too much now, and goes on', async () => {
  const warned = warnings()
  const role = await createRole(database, 4)
  const other = postgres(role.url, { max: 1 })
  onTestFinished(() => other.end())
  await other`select 1`
  await using service = create(role, 4)
  await service.start()
  expect(await service.run('add', { a: 1, b: 2 })).toBe(3)
  expect(warned()).toEqual([expect.stringContaining('others use 1 of them now: 3 left')])
})

test('Service.start() checks the limit without a connection beyond it', async () => {
  const warned = warnings()
  // The server itself lets in one, and not one more.
  const role = await createRole(database, 1)
  await using service = create(role, 1)
  await service.start()
  expect(service.pool.stats()).toMatchObject({
    open: 1,
    opens: 1,
    openFailures: 0,
    closes: { 'reset failed': 0, destroyed: 0 },
  })
  expect(warned()).toEqual([])
})

test('Service.start() does not check with checkLimit: false', async () => {
  const warned = warnings()
  const role = await createRole(database, 3)
  await using service = create(role, 4, { checkLimit: false })
  await service.start()
  expect(await service.run('add', { a: 1, b: 2 })).toBe(3)
  expect(warned()).toEqual([])
})

test('Service.start() goes on with a warning where the server does not tell', async () => {
  const warned = warnings()
  const role = await createRole(database, 4)
  // As good as a server that has never heard of it: this role may not call it.
  const there = postgres(database.url, { max: 1 })
  await there.unsafe('revoke execute on function pg_catalog.pg_has_role(oid, oid, text) from public')
  await there.end()
  onTestFinished(async () => {
    const again = postgres(database.url, { max: 1 })
    await again.unsafe('grant execute on function pg_catalog.pg_has_role(oid, oid, text) to public')
    await again.end()
  })
  await using service = create(role, 4)
  await service.start()
  expect(await service.run('add', { a: 1, b: 2 })).toBe(3)
  expect(warned()).toEqual([expect.stringContaining('permission denied')])
  expect(warned()[0]).not.toContain(new URL(role.url).password)
})

test('createService() refuses a checkLimit that is neither true nor false', async () => {
  const role = await createRole(database, 1)
  expect(() => create(role, 1, { checkLimit: 'warn' as unknown as boolean })).toThrow(
    expect.objectContaining({ code: 'ERR_OPTION', option: 'checkLimit' }),
  )
})
