import { setTimeout as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { rig, watch } from './support.ts'

// What a pool offers to those who let their callers share a connection.

const settled = (): Promise<void> => nextTurn(0)

describe('Pool.offer()', () => {
  test('Pool.offer() asks whoever waits longest, who is not served any more if it takes it', async () => {
    const { pool, clock } = rig({ max: 1, acquireTimeoutMs: 1_000 })
    const lease = await pool.acquire()
    const [first, second] = [pool.wait(), pool.wait()]
    const seen = [watch(first.promise), watch(second.promise)]
    first.instead = () => true
    expect(pool.offer()).toBe(true)
    expect(pool.stats().waiting).toBe(1)
    await lease.release()
    await settled()
    expect(seen.map(({ state }) => state)).toEqual(['pending', 'resolved'])
    // It has no deadline any more, either.
    await clock.advance(2_000)
    expect(seen[0]?.state).toBe('pending')
    expect(pool.stats()).toMatchObject({ timeouts: 0, aborted: 0, acquires: 2 })
    void seen[1]?.value?.release()
    await pool.close()
  })

  test('Pool.offer() passes nobody over', async () => {
    const { pool } = rig({ max: 1 })
    const lease = await pool.acquire()
    const [first, second] = [pool.wait(), pool.wait()]
    const seen = [watch(first.promise), watch(second.promise)]
    second.instead = () => true
    expect(pool.offer()).toBe(false)
    let asked = 0
    first.instead = () => (asked++, false)
    expect([pool.offer(), asked, pool.stats().waiting]).toEqual([false, 1, 2])
    await lease.release()
    await settled()
    expect(seen.map(({ state }) => state)).toEqual(['resolved', 'pending'])
    await seen[0]?.value?.release()
    await settled()
    await seen[1]?.value?.release()
    await pool.close()
  })

  test('Pool.offer() has nobody to ask while nobody waits', async () => {
    const { pool } = rig({ max: 1 })
    expect(pool.offer()).toBe(false)
    await pool.close()
  })
})

describe('Pool.press()', () => {
  test('Pool.press() has one more connection opened, though nobody waits, and no more than that', async () => {
    const { pool, clock } = rig({ max: 4, idleTimeoutMs: Infinity })
    const lease = await pool.acquire()
    pool.press(clock.now())
    await settled()
    expect(pool.stats()).toMatchObject({ open: 2, leased: 1, idle: 1, waiting: 0 })
    pool.press(clock.now())
    await settled()
    expect(pool.stats()).toMatchObject({ open: 2 })
    const second = await pool.acquire()
    pool.press(clock.now())
    await settled()
    expect(pool.stats()).toMatchObject({ open: 3 })
    await Promise.all([lease.release(), second.release()])
    await pool.close()
  })

  test('Pool.press() opens nothing beyond max, and nothing once it is over', async () => {
    const { pool, clock } = rig({ max: 1 })
    const lease = await pool.acquire()
    pool.press(clock.now())
    await settled()
    expect(pool.stats()).toMatchObject({ open: 1, opening: 0 })
    pool.press(undefined)
    pool.resize({ max: 2 })
    await settled()
    expect(pool.stats()).toMatchObject({ open: 1, opening: 0 })
    await lease.release()
    await pool.close()
  })
})

describe('Lease.isDue', () => {
  test('is false while the connection could be lent again, true when it would close', async () => {
    const { pool, clock } = rig({ max: 2, maxLifetimeMs: 1_000 })
    const lease = await pool.acquire()
    expect(lease.isDue).toBe(false)
    await clock.advance(1_001)
    expect(lease.isDue).toBe(true)
    const young = await pool.acquire()
    expect(young.isDue).toBe(false)
    pool.evict()
    expect(young.isDue).toBe(true)
    await Promise.all([lease.release(), young.release()])
    expect(lease.isDue).toBe(true)
    await pool.close()
  })

  test('is true where the connection has ended', async () => {
    const { pool, driver } = rig({ max: 1 })
    const lease = await pool.acquire()
    driver.killAll()
    await settled()
    expect(lease.isDue).toBe(true)
    await lease.release()
    await pool.close()
  })
})
