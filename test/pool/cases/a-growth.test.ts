// Shown elsewhere:
//   15  options.test.ts 'a %s with code ERR_OPTION names …', generations.test.ts 'Pool.resize() refuses bounds …'

import { expect, test } from 'vitest'
import { deferred } from '../../../src/deferred.ts'
import * as presets from '../../../src/presets.ts'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { lease, releaseAll } from './support.ts'

test('queuePool with a pool_size of 0 lends without a limit, whatever max_overflow says', async () => {
  for (const max_overflow of [-1, 0, 10]) {
    const { pool } = rig(presets.queuePool({ pool_size: 0, max_overflow }))
    await releaseAll(await lease(pool, 100))
    expect(pool.stats()).toMatchObject({ opens: 100, idle: 100, waiting: 0 })
  }
}) // case 2

test('queuePool without a limit closes again what it has lent beyond pool_size', async () => {
  const { pool } = rig(presets.queuePool({ pool_size: 3, max_overflow: -1 }))
  const leases = await lease(pool, 6)
  expect(pool.stats()).toMatchObject({ idle: 0, leased: 6 })
  await releaseAll(leases.slice(0, 3))
  expect(pool.stats()).toMatchObject({ idle: 3, leased: 3 })
  await releaseAll(leases.slice(3))
  await settled()
  expect(pool.stats()).toMatchObject({ idle: 3, leased: 0, open: 3, closes: { surplus: 3 } })
}) // case 3

test('an open that throws gives its place back: as many can be lent afterwards as before', async () => {
  const { pool, driver, clock } = rig({ max: 5 })
  const held = await lease(pool, 3)
  driver.behaviour.open = new Error('refused')
  const failed = watch(pool.acquire({ timeoutMs: 10 }))
  await clock.advance(10)
  expect(failed.state).toBe('rejected')
  expect(pool.stats()).toMatchObject({ open: 3, opening: 0, closing: 0, leased: 3 })
  driver.behaviour.open = 'ok'
  const more = [watch(pool.acquire()), watch(pool.acquire()), watch(pool.acquire())]
  await clock.advance(10_000)
  expect(more.map(({ state }) => state)).toEqual(['resolved', 'resolved', 'pending'])
  await releaseAll(held)
}) // case 4

test('100 tasks with 100 leases each open exactly one connection where max is 1', async () => {
  const { pool, driver } = rig({ max: 1 })
  const task = async (): Promise<void> => {
    for (let i = 0; i < 100; i++) await pool.use(() => Promise.resolve())
  }
  await Promise.all(Array.from({ length: 100 }, task))
  expect(driver.connections).toHaveLength(1)
  expect(pool.stats().acquires).toBe(10_000)
}) // case 6

// Ours differs: `min` is how many are open, not how many idle beside those in use. A pool that is busy already would
// otherwise take from a shared limit what it does not need.
test('min counts connections in use, too: a busy pool keeps no spare ones', async () => {
  const { pool } = rig({ min: 5, max: 10 })
  await pool.open()
  const leases = await lease(pool, 7)
  await settled()
  expect(pool.stats()).toMatchObject({ open: 7, idle: 0 })
  await releaseAll(leases)
  expect(pool.stats()).toMatchObject({ open: 7, idle: 7 })
}) // case 12

test('Pool.open() opens exactly min connections, and nobody has acquired one', async () => {
  const { pool, driver } = rig({ min: 12, max: 15 })
  await pool.open()
  await settled()
  expect(pool.stats()).toMatchObject({ idle: 12, acquires: 0, opens: 12 })
  expect(driver.connections).toHaveLength(12)
}) // case 14

// Ours differs: there is no hook for the first connection alone; onOpen has every connection to itself first.
test('nobody gets a connection before its onOpen has ended', async () => {
  const order: string[] = []
  const gates = [deferred<void>(), deferred<void>(), deferred<void>()]
  const { pool } = rig({
    max: 3,
    onOpen: async ({ id }) => {
      order.push(`open ${id}`)
      await gates[id - 1]?.promise
      order.push(`opened ${id}`)
    },
  })
  const tasks = Array.from({ length: 5 }, () => pool.use(({ id }) => void order.push(`use ${id}`)))
  await settled()
  expect(order).toEqual(['open 1', 'open 2', 'open 3'])
  for (const gate of gates) gate.resolve()
  await Promise.all(tasks)
  for (const id of [1, 2, 3]) {
    expect(order.filter((line) => line === `open ${id}`)).toHaveLength(1)
    expect(order.indexOf(`opened ${id}`)).toBeLessThan(order.indexOf(`use ${id}`))
  }
}) // case 16
