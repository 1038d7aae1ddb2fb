import { execFile } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { Histogram } from '../../src/histogram.ts'
import type { PoolEvent } from '../../src/watch.ts'
import { settled } from '../../src/testing/index.ts'
import { rig, watch } from './support.ts'

describe('events', () => {
  test('events tell the life of a connection, in order, with numbers', async () => {
    const events: PoolEvent[] = []
    const { pool, driver, clock } = rig({ max: 1, log: (event) => void events.push(event) })
    driver.behaviour.open = () => new Promise((resolve) => void clock.setTimer(resolve, 12))
    const acquiring = pool.acquire()
    await clock.advance(12)
    const lease = await acquiring
    const waiter = watch(pool.acquire({ timeoutMs: 5 }))
    await clock.advance(7)
    expect(waiter.state).toBe('rejected')
    lease.connection.dirty = true
    await lease.release()
    pool.evict()
    await settled()
    expect(events).toEqual([
      { type: 'millpond:open', pool: 'p', connection: expect.stringMatching(/^mp/), durationMs: 12 },
      { type: 'millpond:acquire', pool: 'p', connection: expect.any(String), waitedMs: 12 },
      { type: 'millpond:timeout', pool: 'p', phase: 'queue', waitedMs: 5 },
      { type: 'millpond:release', pool: 'p', connection: expect.any(String), heldMs: 7 },
      { type: 'millpond:reset', pool: 'p', connection: expect.any(String), durationMs: 0 },
      { type: 'millpond:evict', pool: 'p', connections: 1 },
      { type: 'millpond:close', pool: 'p', connection: expect.any(String), reason: 'evicted', cause: undefined },
    ])
  })

  test('events go to their channels', async () => {
    const heard: unknown[] = []
    const listener = (event: unknown): void => void heard.push(event)
    subscribe('millpond:connect-error', listener)
    onTestFinished(() => void unsubscribe('millpond:connect-error', listener))
    const { pool, driver, clock } = rig()
    driver.behaviour.open = new Error('refused')
    const acquire = watch(pool.acquire({ timeoutMs: 10 }))
    await clock.advance(10)
    expect(acquire.state).toBe('rejected')
    expect(heard[0]).toEqual({ type: 'millpond:connect-error', pool: 'p', cause: new Error('refused') })
  })

  test('a log that throws does not harm the pool', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warned.mockRestore())
    const { pool } = rig({
      log: () => {
        throw new Error('the log is full')
      },
    })
    await (await pool.acquire()).release()
    expect(pool.stats().idle).toBe(1)
    expect(warned).toHaveBeenCalledWith(expect.stringContaining('the log is full'), 'MillpondWarning')
  })

  test('NODE_DEBUG=millpond prints a readable line for each event', async () => {
    const index = fileURLToPath(new URL('../../dist/src/index.js', import.meta.url))
    const testing = fileURLToPath(new URL('../../dist/src/testing/index.js', import.meta.url))
    const program = `
      import { Pool } from '${index}'
      import { FakeDriver } from '${testing}'
      const pool = new Pool({ driver: new FakeDriver(), name: 'orders' })
      await pool.use(async () => {})
      await pool.close()`
    const { stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], {
      env: { ...process.env, NODE_DEBUG: 'millpond' },
    })
    const lines = stderr.trim().split('\n')
    expect(lines).toHaveLength(4)
    expect(lines[0]).toMatch(/^MILLPOND \d+: orders: open mp\w+-1-0 duration=[\d.]+ms$/)
    expect(lines[1]).toMatch(/orders: acquire mp\w+-1-0 waited=[\d.]+ms$/)
    expect(lines[3]).toMatch(/orders: close mp\w+-1-0 reason=closed$/)
  })
})

describe('Pool.stats()', () => {
  test('Pool.stats() has the histograms of waits and openings always, of uses where asked for', async () => {
    const { pool, driver, clock } = rig({ max: 1, timings: true })
    driver.behaviour.open = () => new Promise((resolve) => void clock.setTimer(resolve, 100))
    const acquiring = pool.acquire()
    await clock.advance(100)
    const lease = await acquiring
    await clock.advance(40)
    await lease.release()
    expect(pool.stats()).toMatchObject({
      acquires: 1,
      acquiresWaited: 1,
      waitedMs: 100,
      longestWaitMs: 100,
      waits: { count: 1, totalMs: 100, maxMs: 100, p50Ms: 100 },
      openings: { count: 1, maxMs: 100 },
      uses: { count: 1, totalMs: 40 },
    })
    expect(rig().pool.stats().uses).toBeUndefined()
  })

  test('Pool.stats() counts what was refused and what came back broken', async () => {
    const { pool, driver } = rig({ max: 1, maxWaiting: 1 })
    const lease = await pool.acquire()
    void watch(pool.acquire())
    await expect(pool.acquire()).rejects.toMatchObject({ code: 'ERR_QUEUE_FULL' })
    const [connection] = driver.connections
    if (connection) connection.broken = true
    await lease.release()
    expect(pool.stats()).toMatchObject({ refused: 1, badReturns: 1, closes: { broken: 1 } })
  })
})

describe('Histogram', () => {
  test('Histogram gives percentiles to a fifth, and exact counts, totals and maxima', () => {
    const histogram = new Histogram()
    expect(histogram.snapshot()).toEqual({ count: 0, totalMs: 0, maxMs: 0, p50Ms: 0, p90Ms: 0, p99Ms: 0 })
    for (let ms = 1; ms <= 1_000; ms++) histogram.record(ms)
    const { count, totalMs, maxMs, p50Ms, p90Ms, p99Ms } = histogram.snapshot()
    expect([count, totalMs, maxMs]).toEqual([1_000, 500_500, 1_000])
    for (const [got, right] of [
      [p50Ms, 500],
      [p90Ms, 900],
      [p99Ms, 990],
    ] as const) {
      expect(got).toBeGreaterThanOrEqual(right * 0.99)
      expect(got).toBeLessThanOrEqual(right * 1.2)
    }
    histogram.record(1e12)
    histogram.record(-1)
    histogram.record(0)
    expect(histogram.snapshot()).toMatchObject({ count: 1_003, maxMs: 1e12 })
  })
})

describe('leakAfterMs', () => {
  test('leakAfterMs reports a lease once, with the stack that acquired it', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warned.mockRestore())
    const { pool, clock } = rig({ leakAfterMs: 1_000 })
    const lease = await pool.acquire()
    await (await pool.acquire()).release()
    await clock.advance(900)
    expect(warned).not.toHaveBeenCalled()
    await clock.advance(10_000)
    expect(warned).toHaveBeenCalledOnce()
    expect(warned.mock.calls[0]?.[0]).toMatch(/"p" \(mp.*held for 1\d\d\d ms: [\s\S]*watching\.test\.ts/)
    expect(pool.stats().leaks).toBe(1)
    await lease.release()
  })

  test('leakAfterMs tells whoever listens instead of warning', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warned.mockRestore())
    const leaks: PoolEvent[] = []
    const log = (event: PoolEvent): void => void (event.type === 'millpond:leak' && leaks.push(event))
    const { pool, clock } = rig({ leakAfterMs: 1_000, log })
    await pool.acquire()
    await clock.advance(2_000)
    expect(leaks).toMatchObject([{ acquiredAt: expect.stringContaining('watching.test.ts') }])
    expect(warned).not.toHaveBeenCalled()
  })
})

describe('hold and wait', () => {
  test('an acquire that times out inside a use of its own pool names the lease that its caller holds', async () => {
    const { pool, clock } = rig({ max: 1, leakAfterMs: 60_000 })
    const using = watch(
      pool.use(async () => {
        await pool.acquire({ timeoutMs: 100 })
      }),
    )
    await clock.advance(200)
    expect(using.error).toMatchObject({
      code: 'ERR_ACQUIRE_TIMEOUT',
      phase: 'queue',
      holds: { connection: expect.stringMatching(/^mp/), heldMs: 100, acquiredAt: expect.stringContaining('watching') },
      message: expect.stringContaining('already holds a lease of "p"'),
    })
  })

  test('an acquire outside, of another pool, or after the release holds nothing', async () => {
    const { pool, clock } = rig({ max: 1 })
    const other = rig({ max: 1, clock })
    await other.pool.acquire()
    const errors: unknown[] = []
    const failing = async (from: typeof pool): Promise<void> => {
      errors.push(await from.acquire({ timeoutMs: 10 }).catch((error: unknown) => error))
    }
    const all = pool.use(async (_, lease) => {
      await failing(other.pool)
      await lease.release()
      const taken = await pool.acquire()
      await failing(pool)
      await taken.release()
    })
    await clock.advance(50)
    await all
    expect(errors).toHaveLength(2)
    for (const error of errors) expect(error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', holds: undefined })
  })
})
