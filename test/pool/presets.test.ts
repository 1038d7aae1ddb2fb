import { describe, expect, test } from 'vitest'
import { resolveOptions } from '../../src/options.ts'
import * as presets from '../../src/presets.ts'
import { thawClock } from '../../src/thaw-clock.ts'
import { FakeClock, FakeDriver, settled } from '../../src/testing/index.ts'
import { Pool } from '../../src/pool.ts'
import { rig } from './support.ts'

describe('presets', () => {
  test('every preset gives options that a pool takes, with the defaults of its original', () => {
    expect(resolveOptions(presets.queuePool())).toMatchObject({
      max: 15,
      maxIdle: 5,
      acquireTimeoutMs: 30_000,
      maxLifetimeMs: Infinity,
      pingAfterIdleMs: Infinity,
      order: 'fifo',
    })
    expect(resolveOptions(presets.queuePool({ pool_recycle: 1800, pool_pre_ping: true }))).toMatchObject({
      maxLifetimeMs: 1_800_000,
      pingAfterIdleMs: 0,
    })
    expect(resolveOptions(presets.queuePool({ max_overflow: -1 }))).toMatchObject({ max: 1_000_000, maxIdle: 5 })
    expect(resolveOptions(presets.nullPool())).toMatchObject({ maxIdle: 0 })
    expect(resolveOptions(presets.staticPool())).toMatchObject({ max: 1 })
    expect(resolveOptions(presets.fixedPool({ size: 4 }))).toMatchObject({ min: 4, max: 4 })
    expect(resolveOptions(presets.createPool())).toMatchObject({
      min: 10,
      max: 10,
      maxUses: 50_000,
      idleTimeoutMs: 300_000,
    })
    expect(resolveOptions(presets.simpleConnectionPool({ minconn: 2, maxconn: 5 }))).toMatchObject({
      min: 2,
      max: 5,
      maxIdle: 2,
    })
    expect(resolveOptions(presets.connMaxAge())).toMatchObject({ maxIdle: 0 })
    expect(resolveOptions(presets.connMaxAge({ CONN_MAX_AGE: 60, CONN_HEALTH_CHECKS: true }))).toMatchObject({
      maxLifetimeMs: 60_000,
      pingAfterIdleMs: 0,
    })
    expect(resolveOptions(presets.connMaxAge({ CONN_MAX_AGE: null }))).toMatchObject({
      maxLifetimeMs: Infinity,
      maxIdle: 10,
    })
    expect(resolveOptions(presets.serverless())).toMatchObject({ min: 0, max: 2 })
  })

  test('queuePool: size, idle and leased follow the table of its original', async () => {
    const { pool } = rig({ ...presets.queuePool({ pool_size: 3, max_overflow: 3 }) })
    const leases = await Promise.all(Array.from({ length: 6 }, () => pool.acquire()))
    expect(pool.stats()).toMatchObject({ idle: 0, leased: 6 })
    for (const lease of leases.slice(0, 3)) await lease.release()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 3, leased: 3 })
    for (const lease of leases.slice(3)) await lease.release()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 3, leased: 0, open: 3 })
  })

  test('serverless: after a freeze a kept connection is pinged, and replaced if it is dead', async () => {
    const clock = new FakeClock()
    let frozenMs = 0
    const driver = new FakeDriver()
    const wall = (): number => 1_700_000_000_000 + clock.now() + frozenMs
    const pool = new Pool({ driver, ...presets.serverless(), clock: thawClock(wall, clock) })
    await (await pool.acquire()).release()
    await (await pool.acquire()).release()
    expect(driver.connections[0]?.pings).toBe(0)
    frozenMs = 60_000
    await (await pool.acquire()).release()
    expect(driver.connections[0]?.pings).toBe(1)
    frozenMs += 60_000
    driver.behaviour.ping = new Error('gone')
    expect((await pool.acquire()).connection.id).toBe(2)
  })
})

describe('thawClock()', () => {
  test('thawClock() leaps ahead with the wall clock, and never goes back', () => {
    const clock = new FakeClock()
    let wallMs = 5_000_000
    const thaw = thawClock(() => wallMs + clock.now(), clock)
    const start = thaw.now()
    wallMs += 30_000
    expect(thaw.now() - start).toBe(30_000)
    wallMs -= 100_000
    expect(thaw.now() - start).toBe(30_000)
    wallMs += 900
    expect(thaw.now() - start).toBe(30_000)
    wallMs += 5_000
    expect(thaw.now() - start).toBeGreaterThanOrEqual(35_000)
  })
})
