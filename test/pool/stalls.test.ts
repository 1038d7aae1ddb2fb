import { MessageChannel } from 'node:worker_threads'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import { orAborted } from '../../src/deadline.ts'
import { Pool } from '../../src/pool.ts'
import * as presets from '../../src/presets.ts'
import { thawClock } from '../../src/thaw-clock.ts'
import { FakeClock, FakeDriver, settled } from '../../src/testing/index.ts'
import type { FakeConnection } from '../../src/testing/index.ts'
import { after, lease } from './cases/support.ts'
import { rig, watch } from './support.ts'

// What happens to a pool whose event loop stands still, or whose wall clock jumps: nothing that was in use is lost,
// and nothing is closed by mistake. Case K12 and K13, in full.

/** Nothing has been closed, for whatever reason. */
function expectNothingClosed(pool: Pool<FakeConnection>): void {
  const { closes, timeouts, open } = pool.stats()
  expect(Object.entries(closes).filter(([, count]) => count > 0)).toEqual([])
  expect([timeouts, open]).toEqual([0, 4])
}

/** Does nothing but compute. */
function block(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}

describe('an event loop that stands still', () => {
  test('for 5 s takes no lease from its holder, then or later, and reports one as leaked once its time is over', async () => {
    const leaks: unknown[] = []
    const { pool, driver, clock } = rig({
      max: 4,
      idleTimeoutMs: 1_000,
      acquireTimeoutMs: 1_000,
      leakAfterMs: 10_000,
      pingAfterIdleMs: Infinity,
      log: (event) => void (event.type === 'millpond:leak' && leaks.push(event)),
    })
    const leases = await lease(pool, 4)
    for (const leaked of [0, 4, 4]) {
      await clock.advance(300)
      await clock.stall(5_000)
      expect(leases.map((one) => [one.connection.id, one.connection.counted])).toEqual(
        [1, 2, 3, 4].map((id) => [id, true]),
      )
      expect(leaks).toHaveLength(leaked)
    }
    for (const one of leases) await one.release()
    // The idle timeout begins again behind the last of them.
    await clock.advance(300)
    await clock.stall(5_000)
    await clock.advance(800)
    expectNothingClosed(pool)
    expect(driver.counted).toBe(4)
  })

  test('for 5 s lets acquires be answered that are answered in that turn, in their order', async () => {
    const { pool, clock } = rig({ max: 4, idleTimeoutMs: 1_000, acquireTimeoutMs: 1_000 })
    const leases = await lease(pool, 4)
    const order: number[] = []
    const waiters = [1, 2, 3].map((i) =>
      watch(
        pool.acquire().then((one) => {
          order.push(i)
          return one
        }),
      ),
    )
    for (const [i, one] of leases.slice(0, 3).entries()) clock.setTimer(() => void one.release(), 4_000 + i)
    await clock.stall(5_000)
    expect([waiters.map(({ state }) => state), order]).toEqual([
      ['resolved', 'resolved', 'resolved'],
      [1, 2, 3],
    ])
    expectNothingClosed(pool)
  })

  test('for 5 s does not keep an acquire whose time is over, and that nobody answers', async () => {
    const { pool, clock } = rig({ max: 1, acquireTimeoutMs: 1_000 })
    await pool.acquire()
    const waiter = watch(pool.acquire())
    await clock.stall(5_000)
    expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', waitedMs: 5_000 })
  })

  test.each(['open', 'ping', 'reset'] as const)('for 5 s does not fail the %s whose answer has come', async (call) => {
    const { pool, driver, clock } = rig({
      max: 1,
      connectTimeoutMs: 1_000,
      resetTimeoutMs: 1_000,
      idleTimeoutMs: Infinity,
    })
    if (call !== 'open') await pool.use(() => {})
    await clock.advance(1_001)
    // As drivers do that end a call with its signal; the answer is in the socket.
    const answered = (signal: AbortSignal | undefined): Promise<void> => orAborted(after(clock, 4_000), signal)
    const open = driver.open.bind(driver)
    if (call === 'open') driver.open = (options) => answered(options.signal).then(() => open(options))
    driver.ping = (_: unknown, signal?: AbortSignal) => (call === 'ping' ? answered(signal) : Promise.resolve())
    driver.reset = (_: unknown, options?: { signal: AbortSignal }) => answered(options?.signal)
    const using = watch(
      pool.use((connection) => {
        connection.dirty = call === 'reset'
      }),
    )
    await settled()
    await clock.stall(5_000)
    expect(using.state).toBe('resolved')
    expect(pool.stats()).toMatchObject({ idle: 1, opens: 1, openFailures: 0, acquires: call === 'open' ? 1 : 2 })
  })

  test('really, for longer than every timeout, loses nothing', async () => {
    const driver = new FakeDriver()
    const pool = new Pool({
      driver,
      max: 4,
      idleTimeoutMs: 240,
      acquireTimeoutMs: 200,
      pingAfterIdleMs: Infinity,
      clock: systemClock,
    })
    onTestFinished(() => pool.close({ timeoutMs: 0 }).then(() => {}))
    const [first, second, third, fourth] = await lease(pool, 4)
    await first?.release()
    await second?.release()
    const held = [await pool.acquire(), await pool.acquire(), fourth]
    const waiter = watch(pool.acquire())
    // It comes while the loop stands still; the loop hears of it behind all its timers.
    const { port1, port2 } = new MessageChannel()
    onTestFinished(() => port1.close())
    port2.once('message', () => void third?.release())
    port1.postMessage('done')
    block(300)
    while (waiter.state === 'pending') await settled()
    expect(waiter.error).toBeUndefined()
    expect(waiter.value?.connection).toBe(driver.connections[2])
    expect(held.map((one) => one?.connection.counted)).toEqual([true, true, true])
    expectNothingClosed(pool)
    for (const one of held) await one?.release()
    await settled()
    block(300)
    await settled()
    await settled()
    expectNothingClosed(pool)
    expect(pool.stats()).toMatchObject({ idle: 3, leased: 1 })
  })
})

describe('a wall clock that jumps', () => {
  test('by years, forth and back, is not noticed by what is leased, idle or waiting', async () => {
    const real = Date.now
    let shiftMs = 0
    const wall = vi.spyOn(Date, 'now').mockImplementation(() => real() + shiftMs)
    onTestFinished(() => wall.mockRestore())
    const driver = new FakeDriver()
    const pool = new Pool({ driver, max: 4, idleTimeoutMs: 60_000, maxLifetimeMs: 60_000, leakAfterMs: 60_000 })
    onTestFinished(() => pool.close({ timeoutMs: 0 }).then(() => {}))
    const leases = await lease(pool, 4)
    let waiter = watch(pool.acquire({ timeoutMs: 60_000 }))
    for (const years of [1, -1, 2]) {
      shiftMs = years * 365 * 86_400_000
      await settled()
      expect(waiter.state).toBe('pending')
      expect(leases.map((one) => one.connection.counted)).toEqual([true, true, true, true])
      // One goes from lease to waiter, and one by way of idle.
      const [first, second] = leases.splice(0, 2)
      const ids = [first?.connection.id, second?.connection.id]
      await first?.release()
      await settled()
      await second?.release()
      const again = await pool.acquire()
      expect([waiter.value?.connection.id, again.connection.id]).toEqual(ids)
      leases.push(...(waiter.value ? [waiter.value] : []), again)
      waiter = watch(pool.acquire({ timeoutMs: 60_000 }))
    }
    for (const one of leases) await one.release()
    await settled()
    expect(waiter.state).toBe('resolved')
    expect(pool.stats()).toMatchObject({ idle: 3, leased: 1, opens: 4, leaks: 0 })
    expect(driver.connections.map(({ pings }) => pings)).toEqual([0, 0, 0, 0])
    expectNothingClosed(pool)
  })

  test('forth replaces what is too old for the serverless preset, but takes no lease and fails no waiter', async () => {
    const clock = new FakeClock()
    let frozenMs = 0
    const driver = new FakeDriver()
    const wall = (): number => 1_700_000_000_000 + clock.now() + frozenMs
    const pool = new Pool({ driver, ...presets.serverless({ max: 1 }), clock: thawClock(wall, clock) })
    const held = await pool.acquire()
    const waiter = watch(pool.acquire({ timeoutMs: 30_000 }))
    frozenMs = 3_600_000
    await clock.advance(1_000)
    expect([held.connection.id, held.connection.counted, waiter.state]).toEqual([1, true, 'pending'])
    await held.release()
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
    expect(pool.stats().closes.lifetime).toBe(1)
  })
})
