// Shown elsewhere:
//   126  generations.test.ts 'Pool.evict() retires idle connections now, leased ones on release, opening ones …'
//   130  generations.test.ts 'Pool.evict() refills min with new connections'

import { expect, test } from 'vitest'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { after, lease, releaseAll } from './support.ts'

test('an evicted connection serves its holder to the end, and nobody after that', async () => {
  const { pool } = rig({ max: 1 })
  const one = await pool.acquire()
  pool.evict()
  await settled()
  expect([one.connection.id, one.connection.counted]).toEqual([1, true])
  const waiter = watch(pool.acquire())
  await one.release()
  await settled()
  expect(waiter.value?.connection.id).toBe(2)
}) // case 124

test('15 connections that are lost at once beside evictions are closed once each, and replaced once each', async () => {
  const closed = new Map<number, number>()
  const { pool, driver, clock } = rig({ max: 15, onClose: ({ id }) => void closed.set(id, (closed.get(id) ?? 0) + 1) })
  const leases = await lease(pool, 15)
  driver.behaviour.close = () => after(clock, 50)
  for (const [i, connection] of driver.connections.slice().entries()) {
    if (i % 3 === 0) connection.kill()
    else connection.broken = true
    pool.evict()
  }
  await Promise.all(leases.map((one) => (one.connection.id % 2 === 0 ? one.release() : one.destroy())))
  const again = lease(pool, 15)
  await clock.advance(200)
  const ids = (await again).map(({ connection }) => connection.id)
  expect(ids.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 15 }, (_, i) => i + 16))
  expect([...closed.values()]).toEqual(Array.from({ length: 15 }, () => 1))
  expect(driver.connections).toHaveLength(30)
  expect(driver.peak).toBe(15)
}) // case 125

test('connections that were opened with old settings are gone after an eviction, leased ones and idle ones', async () => {
  const { pool, driver } = rig({ max: 3 })
  let password = 'old'
  const openedWith = new Map<number, string>()
  driver.behaviour.open = ({ id }) => void openedWith.set(id, password)
  const [first, second] = await lease(pool, 2)
  await second?.release()
  password = 'new'
  pool.evict()
  await first?.release()
  for (const one of await lease(pool, 3)) expect(openedWith.get(one.connection.id)).toBe('new')
}) // case 127

test('after an eviction two later sessions are both new, and stay', async () => {
  const { pool } = rig({ max: 2 })
  const two = async (): Promise<number[]> => {
    const leases = await lease(pool, 2)
    const ids = leases.map(({ connection }) => connection.id)
    await releaseAll(leases)
    return ids.toSorted((a, b) => a - b)
  }
  const leases = await lease(pool, 2)
  pool.evict()
  await releaseAll(leases)
  expect(await two()).toEqual([3, 4])
  expect(await two()).toEqual([3, 4])
}) // case 128

test('of four leases that outlive an eviction nothing is left when they are released', async () => {
  const { pool, driver } = rig({ max: 4 })
  const leases = await lease(pool, 4)
  pool.evict()
  expect(pool.stats()).toMatchObject({ open: 4, leased: 4 })
  await releaseAll(leases)
  await settled()
  expect(pool.stats()).toMatchObject({ open: 0, closing: 0, closes: { evicted: 4 } })
  expect(driver.counted).toBe(0)
}) // case 129

test('no hook is called for a connection that could not be opened after an eviction', async () => {
  const hooks: string[] = []
  const { pool, driver, clock } = rig({
    onOpen: ({ id }) => void hooks.push(`open ${id}`),
    onAcquire: ({ id }) => void hooks.push(`acquire ${id}`),
    onRelease: ({ id }) => void hooks.push(`release ${id}`),
    onClose: ({ id }) => void hooks.push(`close ${id}`),
  })
  await pool.use(() => {})
  pool.evict()
  driver.behaviour.open = new Error('no server')
  const failed = watch(pool.acquire({ timeoutMs: 300 }))
  await clock.advance(300)
  expect(failed.state).toBe('rejected')
  expect(hooks).toEqual(['open 1', 'acquire 1', 'release 1', 'close 1'])
}) // case 131
