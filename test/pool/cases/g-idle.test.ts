// Shown elsewhere:
//   111  pool.test.ts 'Pool closes what nobody needed for the idle timeout, down to min' (ours differs: all that nobody
//        needed at any time of the whole period goes at its end, not one in each)
//   113  generations.test.ts 'Pool.resize() …' (what is idle beyond the new bounds goes at once)
//   115  pool.test.ts 'Pool replaces connections that fail their ping within the same acquire' (ours differs: idle
//        connections are looked at when they are lent, not kept alive in between)
//   121  generations.test.ts 'Pool.resize() refuses bounds that cannot be, and of a closed pool opens nothing'

import { expect, test } from 'vitest'
import { deferred } from '../../../src/deferred.ts'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { after, lease, randomFrom, releaseAll } from './support.ts'

test('idle time does not run while a connection is in use', async () => {
  const { pool, clock } = rig({ idleTimeoutMs: 100 })
  for (let i = 0; i < 3; i++) {
    const using = pool.use(async ({ id }) => {
      await after(clock, 500)
      return id
    })
    await clock.advance(500)
    expect(await using).toBe(1)
  }
}) // case 107

test('idle time begins again with every release', async () => {
  const { pool, driver, clock } = rig({ idleTimeoutMs: 1_000, pingAfterIdleMs: Infinity })
  for (let i = 0; i < 5; i++) {
    const one = await pool.acquire()
    await clock.advance(500)
    await one.release()
    await clock.advance(600)
  }
  expect(driver.connections).toHaveLength(1)
  await clock.advance(1_000)
  expect(driver.counted).toBe(0)
}) // case 108

test.each([1, 2, 3])(
  '50 workers at random beside a short idle timeout never get a dead one (seed %i)',
  async (seed) => {
    const random = randomFrom(seed)
    const { pool, clock, driver } = rig({ min: 10, max: 30, idleTimeoutMs: 100 })
    let uses = 0
    const worker = async (): Promise<void> => {
      const until = clock.now() + 2_000
      while (clock.now() < until) {
        await pool.use(async (connection) => {
          for (let i = 0; i < 2; i++) {
            expect([connection.counted, connection.broken]).toEqual([true, false])
            await after(clock, random() * 10)
          }
          uses++
        })
        await after(clock, random() * 100)
      }
    }
    const workers = Promise.all(Array.from({ length: 50 }, worker))
    await clock.advance(2_500)
    await workers
    expect(uses).toBeGreaterThan(1_000)
    expect(driver.peak).toBeLessThanOrEqual(30)
  },
) // case 109

// Ours differs: `min` is kept.
test('a connection that nobody ever acquired goes after the idle timeout, but for min', async () => {
  const { pool, driver, clock } = rig({ min: 1, max: 3, idleTimeoutMs: 1_000 })
  driver.behaviour.open = () => after(clock, 10)
  const leaving = new AbortController()
  const gone = Array.from({ length: 3 }, () => watch(pool.acquire({ signal: leaving.signal })))
  await settled()
  leaving.abort()
  await clock.advance(10)
  expect([gone.length, pool.stats().idle, pool.stats().acquires]).toEqual([3, 3, 0])
  await clock.advance(1_500)
  expect(pool.stats()).toMatchObject({ idle: 1, closes: { idle: 2 } })
}) // case 110

test('a pool of fixed size never shrinks', async () => {
  const { pool, driver, clock } = rig({ min: 4, max: 4, idleTimeoutMs: 100 })
  await pool.open()
  await clock.advance(10_000)
  expect(driver.connections).toHaveLength(4)
  expect(pool.stats().idle).toBe(4)
}) // case 112

test('a lifetime ends between two leases: not at the second of them, but before the last', async () => {
  const { pool, clock } = rig({ max: 1, maxLifetimeMs: 200 })
  const ids: number[] = []
  for (let i = 0; i < 5; i++) {
    const using = pool.use(async ({ id }) => {
      ids.push(id)
      await after(clock, 100)
    })
    await clock.advance(100)
    await using
    await settled()
  }
  expect(ids.slice(0, 2)).toEqual([1, 1])
  expect(ids.at(-1)).toBeGreaterThan(1)
}) // case 114

test('a connection that nobody needs any more when it is open, and that is too many to idle, is closed', async () => {
  const { pool, driver } = rig({ max: 3, maxIdle: 1 })
  const [first, second] = await lease(pool, 2)
  const gate = deferred<void>()
  driver.behaviour.open = () => gate.promise
  const waiter = watch(pool.acquire())
  await settled()
  expect(pool.stats().opening).toBe(1)
  await first?.release()
  await settled()
  await second?.release()
  await waiter.value?.release()
  await settled()
  gate.resolve()
  await settled()
  expect(pool.stats()).toMatchObject({ idle: 1, open: 1, opening: 0, closing: 0 })
  expect(driver.counted).toBe(1)
}) // case 119

// Ours differs: a max of 0 would serve nobody, and is refused.
test('a pool that is made smaller and larger while all is leased ends at its size', async () => {
  const { pool, driver } = rig({ max: 2 })
  const leases = await lease(pool, 2)
  pool.resize({ max: 1 })
  pool.resize({ max: 2 })
  pool.resize({ max: 1 })
  const waiter = watch(pool.acquire())
  await settled()
  expect(waiter.state).toBe('pending')
  await releaseAll(leases)
  await settled()
  await waiter.value?.release()
  await settled()
  expect(pool.stats()).toMatchObject({ max: 1, open: 1, idle: 1, leased: 0, closing: 0 })
  expect(driver.counted).toBe(1)
}) // case 120

test('a connection of 30 s is the same after 1 s, and another after 35 s', async () => {
  const { pool, clock } = rig({ max: 1, maxLifetimeMs: 30_000, idleTimeoutMs: Infinity })
  expect(await pool.use(({ id }) => id)).toBe(1)
  await clock.advance(1_000)
  expect(await pool.use(({ id }) => id)).toBe(1)
  await clock.advance(35_000)
  expect(await pool.use(({ id }) => id)).toBe(2)
}) // case 122
