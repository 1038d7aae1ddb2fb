// Not here:
//   150  a pool cannot be suspended: who has to hold acquires back does so before the pool, where the reason is known

import { expect, test } from 'vitest'
import { AcquireTimeoutError } from '../../../src/errors.ts'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { after } from './support.ts'

test('somebody who gives all idle connections back again and again does not starve who acquires', async () => {
  const { pool, driver } = rig({ max: 1 })
  let done = false
  const sweeping = (async () => {
    while (!done) {
      await pool.releaseIdle()
      const one = pool.tryAcquire()
      expect(pool.tryAcquire()).toBeUndefined()
      await one?.release()
      await settled()
    }
  })()
  for (let i = 0; i < 500; i++) {
    await pool.use(() => {})
    if (i % 10 === 0) await settled()
  }
  done = true
  await sweeping
  expect(driver.peak).toBe(1)
  expect(pool.stats().timeouts).toBe(0)
}) // case 145

// Ours differs: the time of those who were not served is not added to the waits.
test('Pool.stats() counts who was served, who waited and for how long, who was late, and how long leases were held', async () => {
  const { pool, clock } = rig({ max: 3, acquireTimeoutMs: 300, timings: true })
  const clients = Array.from({ length: 7 }, () => watch(pool.use(() => after(clock, 200))))
  await clock.advance(1_000)
  expect(clients.filter(({ error }) => error instanceof AcquireTimeoutError)).toHaveLength(1)
  expect(pool.stats()).toMatchObject({
    acquires: 6,
    timeouts: 1,
    waitedMs: 600,
    longestWaitMs: 200,
    uses: { count: 6, totalMs: 1_200 },
  })
}) // case 147

test('Pool.stats() counts each connection in one state while one opens, one is used and one is closing', async () => {
  const { pool, driver } = rig({ max: 4 })
  await pool.acquire()
  const second = await pool.acquire()
  driver.behaviour.open = 'never'
  void watch(pool.acquire())
  await settled()
  expect(pool.stats()).toMatchObject({ opening: 1, leased: 2, idle: 0, open: 2, closing: 0 })
  driver.behaviour.close = 'never'
  await second.destroy()
  await settled()
  expect(pool.stats()).toMatchObject({ opening: 1, leased: 1, idle: 0, open: 1, closing: 1, waiting: 1 })
}) // case 148
