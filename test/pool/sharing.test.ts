import { setTimeout as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { rig, watch } from './support.ts'

// What a pool offers to those who let their callers share a connection.

const settled = (): Promise<void> => nextTurn(0)

describe('Pool.firstWaiting and Pool.spare()', () => {
  test('Pool.spare() lets go of whoever waits longest, who is not served any more', async () => {
    const { pool, clock } = rig({ max: 1, acquireTimeoutMs: 1_000 })
    const lease = await pool.acquire()
    const [first, second] = [pool.wait(), pool.wait()]
    const seen = [watch(first.promise), watch(second.promise)]
    const wanted = {}
    first.wanted = wanted
    expect(pool.firstWaiting?.wanted).toBe(wanted)
    pool.spare(first)
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

  test('Pool.firstWaiting passes nobody over who wants a connection and nothing else', async () => {
    const { pool } = rig({ max: 1 })
    expect(pool.firstWaiting).toBeUndefined()
    const lease = await pool.acquire()
    const [first, second] = [pool.wait(), pool.wait()]
    const seen = [watch(first.promise), watch(second.promise)]
    second.wanted = {}
    expect(pool.firstWaiting).toBeUndefined()
    await lease.release()
    await settled()
    expect(seen.map(({ state }) => state)).toEqual(['resolved', 'pending'])
    expect(pool.firstWaiting).toBe(second)
    await seen[0]?.value?.release()
    await settled()
    expect(pool.firstWaiting).toBeUndefined()
    await seen[1]?.value?.release()
    await pool.close()
  })

  test('Pool.sparedTimedOut() is the error of a queue, and counts', async () => {
    const { pool, clock } = rig({ max: 1 })
    const since = clock.now()
    await clock.advance(70)
    const error = pool.sparedTimedOut(since, 50)
    expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'queue', waitedMs: 70, timeoutMs: 50 })
    expect(pool.stats().timeouts).toBe(1)
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

describe('Lease.isSpent', () => {
  test('Lease.isSpent is false while the connection could be lent again, true when it would close', async () => {
    const { pool, clock } = rig({ max: 2, maxLifetimeMs: 1_000 })
    const lease = await pool.acquire()
    expect(lease.isSpent).toBe(false)
    await clock.advance(1_001)
    expect(lease.isSpent).toBe(true)
    const young = await pool.acquire()
    expect(young.isSpent).toBe(false)
    pool.evict()
    expect(young.isSpent).toBe(true)
    await Promise.all([lease.release(), young.release()])
    expect(lease.isSpent).toBe(true)
    await pool.close()
  })

  test('Lease.isSpent is true where the connection has ended', async () => {
    const { pool, driver } = rig({ max: 1 })
    const lease = await pool.acquire()
    driver.killAll()
    await settled()
    expect(lease.isSpent).toBe(true)
    await lease.release()
    await pool.close()
  })

  test('Lease.share() counts to maxUses', async () => {
    const { pool } = rig({ max: 1, maxUses: 4 })
    const lease = await pool.acquire()
    const { id } = lease.connection
    lease.share()
    lease.share()
    expect(lease.isSpent).toBe(false)
    lease.share()
    expect(lease.isSpent).toBe(true)
    await lease.release()
    const next = await pool.acquire()
    expect(next.connection.id).not.toBe(id)
    expect(pool.stats().closes.uses).toBe(1)
    await next.release()
    await pool.close()
  })
})
