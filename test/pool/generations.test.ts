import { describe, expect, test } from 'vitest'
import { deferred } from '../../src/deferred.ts'
import { settled } from '../../src/testing/index.ts'
import { rig, watch } from './support.ts'

describe('Pool.evict()', () => {
  test('Pool.evict() retires idle connections now, leased ones on release, opening ones when they are open', async () => {
    const { pool, driver } = rig({ max: 3 })
    const [leased, idle] = [await pool.acquire(), await pool.acquire()]
    await idle.release()
    const gate = deferred<void>()
    const third = await pool.acquire()
    driver.behaviour.open = () => gate.promise
    const waiter = watch(pool.acquire())
    await settled()
    expect(pool.stats()).toMatchObject({ leased: 2, opening: 1 })
    await third.release()
    await settled()
    expect(waiter.state).toBe('resolved')
    pool.evict()
    expect(leased.connection.id).toBe(1)
    driver.behaviour.open = 'ok'
    gate.resolve()
    await leased.release()
    await waiter.value?.release()
    await settled()
    expect(pool.stats()).toMatchObject({ open: 0, closes: { evicted: 3 } })
    expect((await pool.acquire()).connection.id).toBeGreaterThan(3)
  })

  test('Pool.evict() refills min with new connections', async () => {
    const { pool } = rig({ min: 2 })
    await pool.open()
    pool.evict()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 2, opens: 4 })
  })
})

describe('maxUses', () => {
  test('maxUses retires a connection after so many leases; who waits is served by the next', async () => {
    const { pool, driver } = rig({ max: 1, maxUses: 1 })
    const first = await pool.acquire()
    const waiters = Array.from({ length: 5 }, () => pool.use((connection) => connection.id))
    await first.release()
    expect(await Promise.all(waiters)).toEqual([2, 3, 4, 5, 6])
    expect(driver.peak).toBe(1)
    expect(pool.stats().closes.uses).toBe(6)
  })
})

describe('after a connection was lost', () => {
  test('the other idle ones are pinged before they are lent, whatever pingAfterIdleMs says', async () => {
    const { pool, driver, clock } = rig({ pingAfterIdleMs: Infinity, order: 'fifo' })
    const leases = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()])
    for (const lease of leases) await lease.release()
    await clock.advance(10)
    driver.connections[0]?.kill()
    driver.behaviour.ping = (connection) => {
      if (connection.id === 2) throw new Error('gone, too')
    }
    const lease = await pool.acquire()
    expect(lease.connection.id).toBe(3)
    await lease.release()
    const pings = driver.connections[2]?.pings
    await (await pool.acquire()).release()
    expect(driver.connections[2]?.pings).toBe(pings)
  })

  test('a restarted server is not stampeded: attempts that fail together are one failure', async () => {
    const { pool, driver, clock } = rig({ max: 10 })
    const leases = await Promise.all(Array.from({ length: 10 }, () => pool.acquire()))
    driver.behaviour.open = new Error('the database system is starting up')
    const waiters = Array.from({ length: 10 }, () => watch(pool.acquire()))
    for (const connection of driver.connections.slice()) connection.kill()
    for (const lease of leases) await lease.release()
    await clock.advance(1_000)
    const attempts = driver.connections.length - 10
    // Ten at first, then one at a time: at once, +50, +100, +200, +400.
    expect(attempts).toBeGreaterThanOrEqual(14)
    expect(attempts).toBeLessThanOrEqual(16)
    driver.behaviour.open = 'ok'
    await clock.advance(2_000)
    for (const waiter of waiters) expect(waiter.state).toBe('resolved')
  })
})

describe('Pool.releaseIdle()', () => {
  test('Pool.releaseIdle() closes idle connections above min, and resolves when they are closed', async () => {
    const { pool, driver } = rig({ min: 1, max: 4 })
    const leases = await Promise.all(Array.from({ length: 3 }, () => pool.acquire()))
    for (const lease of leases) await lease.release()
    const gate = deferred<void>()
    driver.behaviour.close = () => gate.promise
    const released = watch(pool.releaseIdle())
    await settled()
    expect([released.state, pool.stats().idle, driver.counted]).toEqual(['pending', 1, 3])
    gate.resolve()
    await settled()
    expect([released.state, driver.counted]).toEqual(['resolved', 1])
  })
})

describe('Pool.resize()', () => {
  test('Pool.resize() upwards serves who waits at once', async () => {
    const { pool } = rig({ max: 1 })
    await pool.acquire()
    const waiter = watch(pool.acquire())
    await settled()
    expect(waiter.state).toBe('pending')
    pool.resize({ max: 2 })
    await settled()
    expect(waiter.state).toBe('resolved')
  })

  test('Pool.resize() downwards takes no lease away; what is too much goes as it comes back', async () => {
    const { pool, driver } = rig({ max: 4 })
    const leases = await Promise.all(Array.from({ length: 4 }, () => pool.acquire()))
    pool.resize({ max: 2 })
    expect(driver.counted).toBe(4)
    await leases[0]?.release()
    await leases[1]?.release()
    await settled()
    expect(driver.counted).toBe(2)
    const waiter = watch(pool.acquire())
    await settled()
    expect(waiter.state).toBe('pending')
    await leases[2]?.release()
    await settled()
    expect(waiter.state).toBe('resolved')
    expect(pool.stats()).toMatchObject({ max: 2, leased: 2, closes: { surplus: 2 } })
  })

  test('Pool.resize() of min opens what is missing, and no more', async () => {
    const { pool, driver } = rig({ max: 4 })
    await pool.open()
    pool.resize({ min: 3 })
    await settled()
    expect(pool.stats()).toMatchObject({ min: 3, idle: 3 })
    pool.resize({ min: 0, max: 1 })
    await settled()
    expect(driver.counted).toBe(1)
  })

  test('Pool.resize() refuses bounds that cannot be, and of a closed pool opens nothing', async () => {
    const { pool, driver } = rig({ max: 4 })
    expect(() => pool.resize({ min: 5 })).toThrow(expect.objectContaining({ code: 'ERR_OPTION', option: 'min' }))
    expect(() => pool.resize({ max: 0 })).toThrow(expect.objectContaining({ code: 'ERR_OPTION', option: 'max' }))
    await pool.close()
    pool.resize({ min: 2, max: 16 })
    await settled()
    expect(driver.connections).toHaveLength(0)
  })
})
