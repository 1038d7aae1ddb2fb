// What the test suites of other pools do not have. Shown elsewhere:
//   K12  also stalls.test.ts 'for 5 s takes no lease from its holder, …', 'really, for longer than every timeout, …'
//   K13  also stalls.test.ts 'by years, forth and back, is not noticed by what is leased, idle or waiting'
//   K14  test/broker/member.test.ts 'calls an idle connection away once it is ripe, and ticks until then';
//        test/threads/blocked.test.ts 'and holds idle connections does not keep others from those of a thread …'
//   K15  test/broker/threads.test.ts 'what one had that is … is reaped by another', 'Member, in threads of their own';
//        test/threads/death.test.ts 'that held every permit leaves them to a member that has no living connection'

import { expect, onTestFinished, test, vi } from 'vitest'
import { deferred } from '../../../src/deferred.ts'
import { Pool } from '../../../src/pool.ts'
import { FakeDriver, settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { after, lease, releaseAll } from './support.ts'

test('a connection that takes longer to open than its acquire may wait is used by the next, not thrown away', async () => {
  const { pool, driver, clock } = rig({ max: 1, acquireTimeoutMs: 80 })
  driver.behaviour.open = () => after(clock, 100)
  const first = watch(pool.acquire())
  await clock.advance(50)
  const second = watch(pool.acquire())
  await clock.advance(50)
  expect([first.state, second.value?.connection.id]).toEqual(['rejected', 1])
}) // case K1

test('at full load with short deadlines and slow opens a pool opens max connections, and no more', async () => {
  const { pool, driver, clock } = rig({ max: 5, acquireTimeoutMs: 80, idleTimeoutMs: Infinity })
  driver.behaviour.open = () => after(clock, 100)
  let served = 0
  const client = (): void =>
    void watch(
      pool.use(async () => {
        served++
        await after(clock, 50)
      }),
    )
  for (let i = 0; i < 300; i++) {
    client()
    await clock.advance(5)
  }
  await clock.advance(1_000)
  expect(driver.connections).toHaveLength(5)
  expect(served).toBeGreaterThan(100)
  expect(pool.stats()).toMatchObject({ idle: 5, waiting: 0 })
}) // case K1

test('lifetimes are spread over their last tenth, however often they are looked at', async () => {
  const ages: number[] = []
  const { pool, clock } = rig({
    max: 200,
    maxLifetimeMs: 10_000,
    idleTimeoutMs: Infinity,
    leakAfterMs: 100, // looked at each 25 ms
    onClose: () => void ages.push(clock.now() - openedAt),
  })
  const openedAt = clock.now()
  await releaseAll(await lease(pool, 200))
  await clock.advance(11_000)
  expect(ages).toHaveLength(200)
  expect(Math.min(...ages)).toBeGreaterThanOrEqual(9_000)
  expect(Math.max(...ages)).toBeLessThanOrEqual(10_025)
  const mean = ages.reduce((sum, age) => sum + age, 0) / ages.length
  expect(mean).toBeGreaterThan(9_350)
  expect(mean).toBeLessThan(9_675)
}) // case K2

test('a connection that is never idle when it is looked at is retired all the same', async () => {
  const { pool, clock } = rig({ max: 1, maxLifetimeMs: 1_000 })
  const ids: number[] = []
  let one = await pool.acquire()
  for (let i = 0; i < 25; i++) {
    ids.push(one.connection.id)
    const next = pool.acquire()
    await clock.advance(100)
    await one.release()
    one = await next
  }
  expect(new Set(ids)).toEqual(new Set([1, 2, 3]))
  expect(ids.lastIndexOf(1)).toBeLessThanOrEqual(9)
}) // case K3

test.each(['broken', 'dirty'] as const)(
  'a %s connection that comes back wakes who waits for its place',
  async (state) => {
    const { pool, driver } = rig({ max: 1 })
    driver.behaviour.reset = new Error('cannot')
    const one = await pool.acquire()
    one.connection[state] = true
    const waiter = watch(pool.acquire())
    await one.release()
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
  },
) // case K5

test('a connection that tryAcquire() had opened for min is closed with the pool, which ends', async () => {
  const { pool, driver } = rig({ min: 1 })
  const gate = deferred<void>()
  driver.behaviour.open = () => gate.promise
  expect(pool.tryAcquire()).toBeUndefined()
  expect(pool.stats().opening).toBe(1)
  const closed = watch(pool.close())
  await settled()
  expect(closed.state).toBe('pending')
  gate.resolve()
  await settled()
  expect(closed.state).toBe('resolved')
  expect([driver.counted, pool.stats().idle]).toEqual([0, 0])
}) // case K7

test('a reset that throws before it returns a promise frees the place', async () => {
  const { pool, driver } = rig({ max: 1 })
  driver.reset = () => {
    throw new Error('at once')
  }
  await pool.use((connection) => {
    connection.dirty = true
  })
  expect(await pool.use(({ id }) => id)).toBe(2)
  expect(pool.stats()).toMatchObject({ leased: 0, open: 1 })
}) // case K8

test('an acquire that is unlucky with one connection after the other has one deadline for all of them', async () => {
  const { pool, driver, clock } = rig({ max: 5 })
  await releaseAll(await lease(pool, 5))
  await clock.advance(1_001)
  driver.behaviour.ping = async () => {
    await after(clock, 300)
    throw new Error('dead')
  }
  const startedAt = clock.now()
  const waiter = watch(pool.acquire({ timeoutMs: 1_000 }))
  await clock.advance(999)
  expect(waiter.state).toBe('pending')
  await clock.advance(1)
  expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'ping', waitedMs: 1_000 })
  expect(clock.now() - startedAt).toBe(1_000)
}) // case K9

test('of a grant, an abort and a new acquire in one turn nothing is lost, in any order', async () => {
  for (const order of [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
  ]) {
    const { pool } = rig({ max: 1 })
    const held = await pool.acquire()
    const controller = new AbortController()
    const all = [watch(pool.acquire({ signal: controller.signal })), watch(pool.acquire())]
    await settled()
    const acts = [() => void held.release(), () => controller.abort(), () => void all.push(watch(pool.acquire()))]
    for (const index of order) acts[index]?.()
    await settled()
    for (let i = 0; i < all.length; i++) {
      await all[i]?.value?.release()
      await settled()
    }
    expect(all.slice(1).map(({ state }) => state)).toEqual(['resolved', 'resolved'])
    expect(all[0]?.state).not.toBe('pending')
    expect(pool.stats()).toMatchObject({ leased: 0, idle: 1, waiting: 0 })
  }
}) // case K10

test('a blocked event loop closes nothing by mistake, and fails no waiter whose connection has come', async () => {
  const { pool, driver, clock } = rig({
    max: 4,
    idleTimeoutMs: 1_000,
    acquireTimeoutMs: 1_000,
    pingAfterIdleMs: Infinity,
  })
  const leases = await lease(pool, 4)
  await leases[0]?.release()
  await leases[1]?.release()
  await clock.advance(200)
  await clock.stall(5_000)
  expect(driver.counted).toBe(4)
  await lease(pool, 2)
  const waiter = watch(pool.acquire())
  // It came while the loop was blocked: the release is due right behind the deadline.
  clock.setTimer(() => void leases[2]?.release(), 4_000)
  await clock.stall(5_000)
  expect(waiter.state).toBe('resolved')
  expect(leases[3]?.connection.counted).toBe(true)
  expect(driver.connections).toHaveLength(4)
}) // case K12

test('a wall clock that is set back or forward changes nothing', async () => {
  const real = Date.now
  let shiftMs = 0
  const wall = vi.spyOn(Date, 'now').mockImplementation(() => real() + shiftMs)
  onTestFinished(() => wall.mockRestore())
  const pool = new Pool({ driver: new FakeDriver(), max: 1, idleTimeoutMs: 60_000, maxLifetimeMs: 60_000 })
  onTestFinished(() => pool.close().then(() => {}))
  expect(await pool.use(({ id }) => id)).toBe(1)
  for (const years of [1, -1, 0]) {
    shiftMs = years * 365 * 86_400_000
    expect(await pool.use(({ id, pings }) => [id, pings])).toEqual([1, 0])
    const held = await pool.acquire()
    const startedAt = performance.now()
    await expect(pool.acquire({ timeoutMs: 20 })).rejects.toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT' })
    const waitedMs = performance.now() - startedAt
    expect(waitedMs).toBeGreaterThan(15)
    expect(waitedMs).toBeLessThan(5_000)
    await held.release()
  }
  expect(pool.stats()).toMatchObject({ opens: 1, open: 1 })
}) // case K13
