// Shown elsewhere:
//   21  pool.test.ts 'Pool.acquire() times out at one absolute deadline, with phase, numbers and code'
//   27  pool.test.ts 'Pool gives a returning connection to a waiter while connecting fails'
//   32  generations.test.ts 'Pool.resize() upwards serves who waits at once' (from 1: a max of 0 would serve nobody,
//       and is refused)
//   34  pool.test.ts 'Pool.acquire() serves waiters oldest first …' (ours differs: the queue is in order, never random)

import { expect, test } from 'vitest'
import { AcquireTimeoutError } from '../../../src/errors.ts'
import * as presets from '../../../src/presets.ts'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import type { Rig } from '../support.ts'
import { after, lease, releaseAll } from './support.ts'

/** Uses a connection for a while; what came of it, and when. */
async function client({ pool, clock }: Rig, useMs: number, timeoutMs: number): Promise<[string, number]> {
  const startedAt = clock.now()
  try {
    await pool.use(() => after(clock, useMs), { timeoutMs })
    return ['ok', clock.now() - startedAt]
  } catch (error) {
    expect(error).toBeInstanceOf(AcquireTimeoutError)
    return ['late', clock.now() - startedAt]
  }
}

test('six clients of two connections end two by two, in the order in which they came', async () => {
  const all = rig({ max: 2 })
  const ends: [number, number][] = []
  const clients = Array.from({ length: 6 }, async (_, i) => {
    const [, at] = await client(all, 200, 30_000)
    ends.push([i, at])
  })
  await all.clock.advance(600)
  await Promise.all(clients)
  expect(ends).toEqual([
    [0, 200],
    [1, 200],
    [2, 400],
    [3, 400],
    [4, 600],
    [5, 600],
  ])
  expect(all.driver.connections).toHaveLength(2)
}) // case 17

test('of four clients of two busy connections two meet their deadline, at its time', async () => {
  const all = rig({ max: 2 })
  const clients = Promise.all(Array.from({ length: 4 }, () => client(all, 200, 100)))
  await all.clock.advance(200)
  expect(await clients).toEqual([
    ['ok', 200],
    ['ok', 200],
    ['late', 100],
    ['late', 100],
  ])
}) // case 19

test('a deadline in the middle of the queue costs neither the others their turn nor the pool a connection', async () => {
  const all = rig({ max: 2 })
  const clients = Promise.all([400, 400, 100, 400, 400].map((timeoutMs) => client(all, 200, timeoutMs)))
  await all.clock.advance(400)
  expect(await clients).toEqual([
    ['ok', 200],
    ['ok', 200],
    ['late', 100],
    ['ok', 400],
    ['ok', 400],
  ])
  expect(all.pool.stats()).toMatchObject({ idle: 2, open: 2, waiting: 0 })
}) // case 20

test('no acquire that loses a race for the last connection is told so before its whole time is over', async () => {
  const all = rig({ max: 3, maxIdle: 2 })
  const clients = Promise.all(Array.from({ length: 10 }, () => client(all, 5_000, 2_000)))
  await all.clock.advance(5_000)
  const ends = await clients
  expect(ends.filter(([what]) => what === 'ok')).toHaveLength(3)
  for (const [what, at] of ends) if (what === 'late') expect(at).toBe(2_000)
}) // case 22

test('all waiters are served in turn after the only connection was destroyed, by one new one', async () => {
  const { pool, driver } = rig({ max: 1, acquireTimeoutMs: Infinity })
  const held = await pool.acquire()
  const order: number[] = []
  const waiters = Array.from({ length: 5 }, (_, i) => pool.use(() => void order.push(i)))
  await settled()
  await held.destroy()
  await Promise.all(waiters)
  expect(order).toEqual([0, 1, 2, 3, 4])
  expect(driver.connections).toHaveLength(2)
}) // case 24

test.each([
  [0, 0],
  [0, 30],
  [-1, 0],
  [-1, 30],
  [3, 0],
  [3, 30],
])('two waiters end when one lease is destroyed, with max_overflow %i and a timeout of %i s', async (over, seconds) => {
  const settings = presets.queuePool({ pool_size: 2, max_overflow: over })
  const { pool } = rig({ ...settings, acquireTimeoutMs: seconds === 0 ? Infinity : seconds * 1_000 })
  const leases = await lease(pool, 2 + Math.max(0, over))
  const waiters = [watch(pool.use(() => 'done')), watch(pool.use(() => 'done'))]
  await settled()
  await leases[0]?.destroy()
  await settled()
  expect(waiters.map(({ value }) => value)).toEqual(['done', 'done'])
}) // case 25

test('a waiter has the connection at the moment when it comes back', async () => {
  const { pool, clock } = rig({ max: 2 })
  const [first] = await lease(pool, 2)
  const waiter = watch(pool.acquire({ timeoutMs: 1_000 }))
  await clock.advance(799)
  expect(waiter.state).toBe('pending')
  clock.setTimer(() => void first?.release(), 1)
  await clock.advance(1)
  expect(waiter.state).toBe('resolved')
}) // case 26

test('an acquire outlasts a server that is away for less than its deadline', async () => {
  const { pool, driver, clock } = rig()
  driver.behaviour.open = new Error('refused')
  const waiter = watch(pool.acquire({ timeoutMs: 2_800 }))
  await clock.advance(300)
  expect(waiter.state).toBe('pending')
  driver.behaviour.open = 'ok'
  await clock.advance(1_000)
  expect(waiter.state).toBe('resolved')
}) // case 28

test('an acquire from a server that stays away ends at its deadline, not before', async () => {
  const { pool, driver, clock } = rig()
  driver.behaviour.open = new Error('refused')
  const waiter = watch(pool.acquire({ timeoutMs: 2_800 }))
  await clock.advance(2_799)
  expect(waiter.state).toBe('pending')
  await clock.advance(1)
  expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', cause: new Error('refused') })
}) // case 29

test('a pool that was asked for too much finds its balance again, and opens nothing in vain', async () => {
  const all = rig({ max: 10, connectTimeoutMs: 5_000 })
  const { pool, driver, clock } = all
  driver.behaviour.open = () => after(clock, 600)
  const ends: { at: number; what: string }[] = []
  const arrive = async (every: number, count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      void client(all, 1_000, 1_000).then(([what]) => ends.push({ at: clock.now(), what }))
      await clock.advance(every)
    }
  }
  await arrive(80, 125)
  const balancedFrom = clock.now() + 10_000
  await arrive(100, 200)
  const last = ends.filter(({ at }) => at > balancedFrom)
  expect(last.filter(({ what }) => what === 'ok').length).toBeGreaterThanOrEqual(98)
  expect(last.filter(({ what }) => what === 'late').length).toBeLessThanOrEqual(2)
  expect(driver.connections).toHaveLength(10)
  await clock.advance(5_000)
  expect(pool.stats()).toMatchObject({ waiting: 0, leased: 0 })
}) // case 30

test('25,000 waiters of three connections are all served', async () => {
  const { pool, driver } = rig({ max: 3 })
  let served = 0
  await Promise.all(
    Array.from({ length: 25_000 }, () =>
      pool.use(() => {
        served++
      }),
    ),
  )
  expect([served, driver.connections.length]).toEqual([25_000, 3])
}) // case 31

test('an acquire with no time at all ends at once, whatever the driver never does', async () => {
  const { pool, driver } = rig({ max: 1, connectTimeoutMs: 1 })
  driver.behaviour.open = 'never'
  await expect(pool.acquire({ timeoutMs: 0 })).rejects.toBeInstanceOf(AcquireTimeoutError)
}) // case 33

test('who waits is served before the connection rests, and a later caller does not overtake', async () => {
  const { pool } = rig({ max: 1 })
  const held = await pool.acquire()
  const waiter = watch(pool.acquire())
  await held.release()
  expect(pool.tryAcquire()).toBeUndefined()
  await settled()
  expect(waiter.state).toBe('resolved')
  await releaseAll(waiter.value ? [waiter.value] : [])
}) // case 34
