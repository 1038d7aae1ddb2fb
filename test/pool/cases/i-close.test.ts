// Shown elsewhere:
//   132  pool.test.ts 'Pool.close() refuses who waits, waits for leases, and leaves nothing'
//   142  ours differs: what throws all connections away and goes on is evict(), and leased ones go on their release

import { expect, test } from 'vitest'
import { LeaseReleasedError, LeaseRevokedError, PoolClosedError } from '../../../src/errors.ts'
import { Pool } from '../../../src/pool.ts'
import { FakeDriver, settled } from '../../../src/testing/index.ts'
import { rig, watch, watchRejections } from '../support.ts'
import { after, lease, randomFrom, releaseAll } from './support.ts'

test('a close that meets its deadline takes the lease away; its late holder comes to no harm', async () => {
  const rejections = watchRejections()
  const { pool, driver, clock } = rig({ max: 1 })
  const seen: unknown[] = []
  const using = watch(
    pool.use(async (_, one) => {
      await after(clock, 500)
      try {
        seen.push(one.connection)
      } catch (error) {
        seen.push(error)
      }
    }),
  )
  await settled()
  const closed = watch(pool.close({ timeoutMs: 100 }))
  await clock.advance(99)
  expect(closed.state).toBe('pending')
  await clock.advance(1)
  expect(closed.value).toEqual({ revoked: 1 })
  expect(driver.counted).toBe(0)
  await clock.advance(400)
  expect(using.state).toBe('resolved')
  expect(seen).toEqual([expect.any(LeaseRevokedError)])
  expect(rejections).toEqual([])
}) // case 133

test('a lease that outlives the call of close() is closed when it comes back, not pooled', async () => {
  const { pool, driver } = rig({ max: 2 })
  const one = await pool.acquire()
  const closed = watch(pool.close())
  await settled()
  expect(one.connection.counted).toBe(true)
  await one.release()
  await settled()
  expect([closed.state, driver.counted]).toEqual(['resolved', 0])
  expect(pool.stats()).toMatchObject({ idle: 0, closes: { closed: 1 } })
  expect(() => one.connection).toThrow(LeaseReleasedError)
}) // case 135

test('a closed pool refuses whatever is asked of it, and stays closed', async () => {
  const { pool, driver } = rig({ min: 1 })
  await pool.open()
  await pool.close()
  await expect(pool.open()).rejects.toBeInstanceOf(PoolClosedError)
  await expect(pool.acquire()).rejects.toBeInstanceOf(PoolClosedError)
  await expect(pool.use(() => {})).rejects.toBeInstanceOf(PoolClosedError)
  expect(() => pool.tryAcquire()).toThrow(PoolClosedError)
  pool.evict()
  await pool.releaseIdle()
  await settled()
  expect(driver.connections).toHaveLength(1)
  expect(pool.stats()).toMatchObject({ phase: 'closed', open: 0 })
}) // case 136

test('close() waits for four leases and their ends; a second call waits as well', async () => {
  const { pool, driver, clock } = rig({ max: 4 })
  const leases = await lease(pool, 4)
  driver.behaviour.close = () => after(clock, 50)
  const closes = [watch(pool.close()), watch(pool.close())]
  await releaseAll(leases.slice(0, 3))
  await clock.advance(100)
  expect(closes.map(({ state }) => state)).toEqual(['pending', 'pending'])
  await releaseAll(leases.slice(3))
  await clock.advance(49)
  expect(closes.map(({ state }) => state)).toEqual(['pending', 'pending'])
  await clock.advance(1)
  expect(closes.map(({ state }) => state)).toEqual(['resolved', 'resolved'])
  expect(await pool.close()).toEqual({ revoked: 0 })
  expect(driver.counted).toBe(0)
}) // case 137

test.each([1, 2, 3, 4, 5])('many who use a pool while it closes get a lease or hear of it (seed %i)', async (seed) => {
  const rejections = watchRejections()
  const random = randomFrom(seed)
  const { pool, driver, clock } = rig({ max: 4, acquireTimeoutMs: 5_000 })
  driver.behaviour.open = () => after(clock, random() * 20)
  driver.behaviour.close = () => after(clock, random() * 20)
  const ends: unknown[] = []
  const users = Array.from({ length: 60 }, async () => {
    await after(clock, random() * 100)
    await pool
      .use(() => after(clock, random() * 20))
      .then(
        () => ends.push('used'),
        (error: unknown) => ends.push(error),
      )
  })
  clock.setTimer(() => void pool.close(), 30 + random() * 40)
  const closed = watch(after(clock, 80).then(() => pool.close()))
  await clock.advance(1_000)
  await Promise.all(users)
  expect(closed.value).toEqual({ revoked: 0 })
  for (const end of ends) if (end !== 'used') expect(end).toBeInstanceOf(PoolClosedError)
  expect(new Set(ends.map((end) => typeof end)).size).toBe(2)
  expect([driver.counted, clock.timers.all, rejections.length]).toEqual([0, 0, 0])
}) // case 140

test('close() refuses who waits and whoever comes, also those who would not wait', async () => {
  const { pool, driver } = rig({ max: 1 })
  const one = await pool.acquire()
  const waiter = watch(pool.acquire())
  void pool.close()
  await settled()
  expect(waiter.error).toBeInstanceOf(PoolClosedError)
  await expect(pool.acquire({ timeoutMs: 0 })).rejects.toBeInstanceOf(PoolClosedError)
  await one.release()
  await settled()
  expect(driver.counted).toBe(0)
}) // case 141

test('nothing is left of a pool that was opened, used and closed: no timer, no connection', async () => {
  const { pool, driver, clock } = rig({ min: 2, max: 4, leakAfterMs: 1_000 })
  await pool.open()
  await releaseAll(await lease(pool, 4))
  expect(clock.timers.all).toBeGreaterThan(0)
  await pool.close()
  expect([clock.timers.all, driver.counted]).toEqual([0, 0])
}) // case 143

test('nothing is left of two pools with one clock when both are closed', async () => {
  const { pool, clock } = rig({ min: 1 })
  const other = new Pool({ driver: new FakeDriver(), clock, min: 1 })
  await Promise.all([pool.open(), other.open()])
  await pool.close()
  expect(await other.use(({ id }) => id)).toBe(1)
  expect(clock.timers.all).toBeGreaterThan(0)
  await other.close()
  expect(clock.timers.all).toBe(0)
}) // case 144
