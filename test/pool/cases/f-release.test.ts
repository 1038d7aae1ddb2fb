// Shown elsewhere:
//   89   test/postgres/pool.test.ts 'PostgresLease.release() closes a connection whose COPY was left unfinished'
//   94, 95  test/postgres/driver.test.ts 'PostgresDriver.reset() rolls back a transaction in status %s',
//        'PostgresDriver.reset() cancels a query that does not finish in time, and rejects' (ours differs: what can be
//        cleaned is cleaned, and lent again); watching.test.ts 'Pool.stats() counts … what came back broken'
//   96   pool.test.ts 'Lease.connection throws after the release …', test/postgres/pool.test.ts 'PostgresLease.sql rejects after …'
//   97   cannot happen: a lease goes back by itself, there is no release that takes a connection
//   98   pool.test.ts 'Lease.connection throws after the release, and a second release does nothing'
//   99   pool.test.ts 'Lease whose connection dies frees its permit at once; its release is harmless'
//   100  generations.test.ts 'maxUses retires a connection after so many leases; who waits is served by the next'
//   101  test/postgres/pool.test.ts 'PostgresPool.transaction() rejects when COMMIT itself fails', '… is lost …'
//   104  generations.test.ts 'Pool.evict() retires idle connections now, leased ones on release …'
//   106  ours differs: a finalizer would clean a session at a time that nobody knows. A lease that is not released is
//        reported, watching.test.ts 'leakAfterMs reports a lease once, with the stack that acquired it'

import { expect, test } from 'vitest'
import type { FakeConnection } from '../../../src/testing/index.ts'
import { settled } from '../../../src/testing/index.ts'
import type { PoolEvent } from '../../../src/watch.ts'
import { rig, watch } from '../support.ts'
import { lease, releaseAll } from './support.ts'

// Ours differs: a connection cannot be detached; who wants it gone destroys it, and it is closed.
test('a release resets, a destroy closes without a reset', async () => {
  const { pool, driver } = rig({ max: 2, reset: 'full' })
  const [first, second] = await lease(pool, 2)
  await first?.release()
  await second?.destroy()
  await settled()
  expect(driver.connections.map(({ resets, counted }) => [resets, counted])).toEqual([
    [1, true],
    [0, false],
  ])
}) // case 86

test.each([
  ['auto', false, 0],
  ['auto', true, 1],
  ['full', false, 1],
  ['full', true, 1],
  ['none', false, 0],
  ['none', true, 0],
] as const)('reset %s of a session that is dirty (%s) makes %i resets, in that mode', async (reset, dirty, times) => {
  const { pool, driver } = rig({ reset })
  const modes: string[] = []
  driver.reset = (_: FakeConnection, options?: { mode: string }) => {
    modes.push(options?.mode ?? '')
    return Promise.resolve()
  }
  await pool.use((connection) => {
    connection.dirty = dirty
  })
  expect(modes).toEqual(Array.from({ length: times }, () => reset))
}) // case 87

test('a reset that fails costs the connection, the next caller gets another one, and the reason is told', async () => {
  const events: PoolEvent[] = []
  const { pool, driver } = rig({ max: 1, log: (event) => void events.push(event) })
  driver.behaviour.reset = new Error('still in a transaction')
  await pool.use((connection) => {
    connection.dirty = true
  })
  expect(await pool.use(({ id }) => id)).toBe(2)
  expect(events.filter(({ type }) => type === 'millpond:reset-error')).toMatchObject([
    { cause: new Error('still in a transaction') },
  ])
}) // case 91

test.each([2, 3, 4, 5])(
  'ten users of %i connections: each opened once, each lease asked once on both ways',
  async (max) => {
    const calls: Record<string, number> = { open: 0, acquire: 0, release: 0 }
    const count = (name: string) => (): void => void (calls[name] = (calls[name] ?? 0) + 1)
    const { pool } = rig({ max, onOpen: count('open'), onAcquire: count('acquire'), onRelease: count('release') })
    await Promise.all(Array.from({ length: 10 }, () => pool.use(() => settled())))
    expect(calls).toEqual({ open: max, acquire: 10, release: 10 })
    await pool.close()
  },
) // case 93

test('a callback that throws at once releases its connection, and the pool can close', async () => {
  const { pool } = rig({ max: 1 })
  const using = pool.use(() => {
    throw new Error('mine')
  })
  await expect(using).rejects.toThrow('mine')
  expect(pool.stats()).toMatchObject({ leased: 0, idle: 1 })
  expect(await pool.close()).toEqual({ revoked: 0 })
}) // case 102

test('two tasks that destroy every connection they get never meet an error, nor each other', async () => {
  const { pool, driver } = rig({ max: 2 })
  const task = async (): Promise<void> => {
    for (let i = 0; i < 1_000; i++) await (await pool.acquire({ timeoutMs: 100 })).destroy()
  }
  await Promise.all([task(), task()])
  expect(driver.peak).toBeLessThanOrEqual(2)
  expect(pool.stats()).toMatchObject({ timeouts: 0, closes: { destroyed: 2_000 } })
}) // case 103

test('a close that itself gives back or ends the connection closes it once', async () => {
  const { pool, driver } = rig({ max: 1, maxUses: 1 })
  let closes = 0
  const one = await pool.acquire()
  const { connection } = one
  driver.close = async () => {
    closes++
    await one.release()
    await one.destroy()
    connection.kill()
  }
  await one.release()
  await settled()
  expect(closes).toBe(1)
  expect(pool.stats()).toMatchObject({ open: 0, closing: 0, closes: { uses: 1, broken: 0 } })
}) // case 105

test('leases that are released in any order all come back, and each once', async () => {
  const { pool } = rig({ max: 3 })
  const [a, b, c] = await lease(pool, 3)
  const waiter = watch(pool.acquire())
  await releaseAll([b, a, c, a, b].filter((one) => one !== undefined))
  await settled()
  expect(waiter.state).toBe('resolved')
  expect(pool.stats()).toMatchObject({ leased: 1, idle: 2, open: 3 })
}) // case 98
