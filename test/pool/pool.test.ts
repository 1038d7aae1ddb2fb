import { setImmediate as turn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import {
  AcquireTimeoutError,
  ConnectError,
  LeaseReleasedError,
  LeaseRevokedError,
  PoolClosedError,
  QueueFullError,
} from '../../src/errors.ts'
import { FakeDriver, settled } from '../../src/testing/index.ts'
import { deferred } from '../../src/deferred.ts'
import { rig, watch } from './support.ts'

describe('Pool.acquire()', () => {
  test('Pool.acquire() opens the first connection, and lends it again after its release', async () => {
    const { pool, driver } = rig()
    expect(driver.connections).toHaveLength(0)
    const first = await pool.acquire()
    const { id } = first.connection
    await first.release()
    const second = await pool.acquire()
    expect(second.connection.id).toBe(id)
    expect(driver.connections).toHaveLength(1)
  })

  test('Pool.acquire() serves waiters oldest first and never opens more than max', async () => {
    const { pool, driver } = rig({ max: 2 })
    const order: number[] = []
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const lease = await pool.acquire()
        order.push(i)
        await settled()
        await lease.release()
      }),
    )
    expect(order).toEqual(Array.from({ length: 20 }, (_, i) => i))
    expect(driver.peak).toBe(2)
    expect(pool.stats()).toMatchObject({ acquires: 20, waiting: 0, leased: 0, idle: 2 })
  })

  test('Pool.acquire() does not open for a waiter whom a returning connection has served meanwhile', async () => {
    const { pool, driver, clock } = rig({ max: 5 })
    const held = await pool.acquire()
    driver.behaviour.open = 'never'
    const waiter = watch(pool.acquire())
    await settled()
    expect(pool.stats()).toMatchObject({ opening: 1, waiting: 1 })
    await held.release()
    await settled()
    expect(waiter.state).toBe('resolved')
    // One attempt was under way; nobody needs another one.
    await clock.advance(5_000)
    expect(driver.connections).toHaveLength(2)
  })

  test('Pool.acquire() times out at one absolute deadline, with phase, numbers and code', async () => {
    const { pool, clock } = rig({ max: 1, acquireTimeoutMs: 1_000, name: 'api' })
    await pool.acquire()
    const waiter = watch(pool.acquire())
    await clock.advance(999)
    expect(waiter.state).toBe('pending')
    await clock.advance(1)
    expect(waiter.error).toBeInstanceOf(AcquireTimeoutError)
    expect(waiter.error).toMatchObject({
      code: 'ERR_ACQUIRE_TIMEOUT',
      phase: 'queue',
      waitedMs: 1_000,
      timeoutMs: 1_000,
      stats: { leased: 1, waiting: 1, max: 1 },
      message:
        'Cannot acquire a connection from "api" within 1000 ms (phase: queue): 1 of 1 leased, 0 idle, 0 opening, 1 waiting.',
    })
    expect(pool.stats()).toMatchObject({ waiting: 0, timeouts: 1 })
  })

  test('Pool.acquire() that times out in the middle of the queue takes nothing from the others', async () => {
    const { pool, clock } = rig({ max: 1 })
    const held = await pool.acquire()
    const before = watch(pool.acquire())
    const middle = watch(pool.acquire({ timeoutMs: 100 }))
    const after = watch(pool.acquire())
    await clock.advance(100)
    expect([before.state, middle.state, after.state]).toEqual(['pending', 'rejected', 'pending'])
    await held.release()
    await settled()
    await before.value?.release()
    await settled()
    await after.value?.release()
    expect([before.state, after.state]).toEqual(['resolved', 'resolved'])
    expect(pool.stats()).toMatchObject({ idle: 1, leased: 0, waiting: 0 })
  })

  test('Pool.acquire() says what it waited for: a permit of its own queue, a connect, a ping', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = rig({ max: 2, acquireTimeoutMs: 1_000 }, driver)
    driver.behaviour.open = 'never'
    const connecting = watch(pool.acquire())
    await clock.advance(1_000)
    expect(connecting.error).toMatchObject({ phase: 'connect' })

    const { pool: second, driver: pinged, clock: later } = rig({ max: 1, acquireTimeoutMs: 1_000 })
    await (await second.acquire()).release()
    await later.advance(1_001)
    pinged.behaviour.ping = 'never'
    const pinging = watch(second.acquire())
    await later.advance(1_000)
    expect(pinging.error).toMatchObject({ phase: 'ping' })
  })

  test('Pool.acquire() rejects with the signal’s own reason, before it starts and while it waits', async () => {
    const { pool } = rig({ max: 1 })
    const reason = new Error('the client has left')
    await expect(pool.acquire({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const held = await pool.acquire()
    const controller = new AbortController()
    const waiter = watch(pool.acquire({ signal: controller.signal }))
    const next = watch(pool.acquire())
    controller.abort(reason)
    await settled()
    expect(waiter.error).toBe(reason)
    await held.release()
    await settled()
    expect(next.state).toBe('resolved')
    expect(pool.stats()).toMatchObject({ aborted: 1, waiting: 0 })
  })

  test('Pool.acquire() that is aborted while its connection opens leaves that connection idle', async () => {
    const { pool, driver } = rig()
    const gate = deferred<void>()
    driver.behaviour.open = () => gate.promise
    const controller = new AbortController()
    const waiter = watch(pool.acquire({ signal: controller.signal }))
    await settled()
    controller.abort()
    await settled()
    expect(waiter.state).toBe('rejected')
    gate.resolve()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 1, opens: 1, aborted: 1, acquires: 0 })
    expect(driver.counted).toBe(1)
  })

  test('Pool.acquire() with an Infinite timeout sets no timer and waits', async () => {
    const { pool, clock } = rig({
      max: 1,
      acquireTimeoutMs: Infinity,
      idleTimeoutMs: Infinity,
      maxLifetimeMs: Infinity,
    })
    const held = await pool.acquire()
    const waiter = watch(pool.acquire())
    expect(clock.timers.all).toBe(0)
    await clock.advance(10_000_000)
    expect(waiter.state).toBe('pending')
    await held.release()
    await settled()
    expect(waiter.state).toBe('resolved')
  })

  test('Pool.acquire({ timeoutMs: 0 }) takes only what can be had now', async () => {
    const { pool } = rig({ max: 1 })
    await expect(pool.acquire({ timeoutMs: 0 })).rejects.toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', timeoutMs: 0 })
    await settled()
    const lease = await pool.acquire({ timeoutMs: 0 })
    expect(lease.connection.id).toBe(1)
  })

  test('Pool.acquire() is refused at once when maxWaiting others wait', async () => {
    const { pool } = rig({ max: 1, maxWaiting: 1 })
    await pool.acquire()
    const waiter = watch(pool.acquire())
    await expect(pool.acquire()).rejects.toBeInstanceOf(QueueFullError)
    expect(waiter.state).toBe('pending')
  })

  test('Pool.acquire() behind a blocked event loop takes a connection that came in time', async () => {
    const { pool, clock } = rig({ max: 1, acquireTimeoutMs: 1_000 })
    const held = await pool.acquire()
    const waiter = watch(pool.acquire())
    // The deadline's timer fires late; the release is next in line behind it.
    clock.setTimer(() => void held.release(), 4_000)
    await clock.stall(5_000)
    expect(waiter.state).toBe('resolved')
  })
})

describe('Pool.tryAcquire()', () => {
  test('Pool.tryAcquire() lends an idle connection that needs no ping, and nothing else', async () => {
    const { pool, clock } = rig({ max: 1 })
    expect(pool.tryAcquire()).toBeUndefined()
    await (await pool.acquire()).release()
    const lease = pool.tryAcquire()
    expect(lease?.connection.id).toBe(1)
    expect(pool.tryAcquire()).toBeUndefined()
    await lease?.release()
    await clock.advance(1_001)
    expect(pool.tryAcquire()).toBeUndefined()
  })
})

describe('Pool.use()', () => {
  test('Pool.use() releases after the callback, also when it throws', async () => {
    const { pool } = rig({ max: 1 })
    expect(await pool.use((connection) => connection.id)).toBe(1)
    await expect(pool.use(() => Promise.reject(new Error('mine')))).rejects.toThrow('mine')
    expect(pool.stats()).toMatchObject({ leased: 0, idle: 1 })
  })
})

describe('Pool.open()', () => {
  test('Pool.open() resolves when min connections are open, and not before', async () => {
    const { pool, driver } = rig({ min: 3 })
    const gate = deferred<void>()
    driver.behaviour.open = () => gate.promise
    const opened = watch(pool.open())
    await settled()
    expect(opened.state).toBe('pending')
    expect(driver.connections).toHaveLength(3)
    gate.resolve()
    await settled()
    expect(opened.state).toBe('resolved')
    expect(pool.stats()).toMatchObject({ idle: 3, acquires: 0 })
  })

  test('Pool.open() rejects with an error that retrying cannot cure', async () => {
    const { pool, driver } = rig({ min: 1 })
    driver.behaviour.open = new ConnectError('password authentication failed', { retryable: false })
    await expect(pool.open()).rejects.toMatchObject({ code: 'ERR_CONNECT', retryable: false })
  })

  test('Pool.open() gives up at acquireTimeoutMs when the server stays away', async () => {
    const { pool, driver, clock } = rig({ min: 1, acquireTimeoutMs: 2_000 })
    driver.behaviour.open = new Error('refused')
    const opened = watch(pool.open())
    await clock.advance(2_000)
    expect(opened.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect' })
  })

  test('Pool keeps min: a connection that was lost is replaced without anybody asking', async () => {
    const { pool, driver } = rig({ min: 2 })
    await pool.open()
    driver.connections[0]?.kill()
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 2, opens: 3, closes: { broken: 1 } })
  })
})

describe('Pool and failed opens', () => {
  test('Pool tries again at once, then backs off from 50 ms, doubling, ±10 %', async () => {
    const { pool, driver, clock } = rig()
    const attempts: number[] = []
    driver.behaviour.open = () => {
      attempts.push(clock.now())
      throw new Error('refused')
    }
    const waiter = watch(pool.acquire({ timeoutMs: 1_000 }))
    await clock.advance(1_000)
    expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect', cause: new Error('refused') })
    const pauses = attempts.slice(1).map((at, i) => at - (attempts[i] ?? 0))
    expect(pauses[0]).toBe(0)
    for (const [i, nominal] of [50, 100, 200, 400].entries()) {
      expect(pauses[i + 1]).toBeGreaterThanOrEqual(nominal * 0.9)
      expect(pauses[i + 1]).toBeLessThanOrEqual(nominal * 1.1)
    }
    const after = attempts.length
    await clock.advance(60_000)
    expect(attempts).toHaveLength(after)
  })

  test('Pool fails all present waiters at once when retrying cannot help, and still backs off', async () => {
    const { pool, driver, clock } = rig()
    driver.behaviour.open = new ConnectError('password authentication failed', { retryable: false, cause: 'x' })
    const waiters = Array.from({ length: 5 }, () => watch(pool.acquire()))
    await settled()
    for (const waiter of waiters) expect(waiter.error).toMatchObject({ code: 'ERR_CONNECT', retryable: false })
    for (let i = 0; i < 4; i++) {
      void watch(pool.acquire())
      await settled()
    }
    const attempts = driver.connections.length
    expect(attempts).toBeLessThan(12)
    await settled()
    expect(driver.connections.length).toBe(attempts)
    await clock.advance(60_000)
    expect(pool.stats().waiting).toBe(0)
  })

  test('Pool serves waiters as soon as the server is back', async () => {
    const { pool, driver, clock } = rig({ max: 3 })
    driver.behaviour.open = new Error('refused')
    const waiters = Array.from({ length: 3 }, () => watch(pool.acquire()))
    await clock.advance(300)
    driver.behaviour.open = 'ok'
    await clock.advance(5_500)
    expect(waiters.map((waiter) => waiter.state)).toEqual(['resolved', 'resolved', 'resolved'])
  })

  test('Pool gives a returning connection to a waiter while connecting fails', async () => {
    const { pool, driver, clock } = rig({ max: 2 })
    const held = await pool.acquire()
    driver.behaviour.open = new Error('refused')
    const waiter = watch(pool.acquire())
    await clock.advance(250)
    await held.release()
    await settled()
    expect(waiter.state).toBe('resolved')
  })

  test('Pool does not spin when a driver rejects synchronously', async () => {
    const { pool, driver, clock } = rig()
    driver.open = () => {
      throw new Error('at once')
    }
    const waiter = watch(pool.acquire({ timeoutMs: 500 }))
    await clock.advance(500)
    expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT' })
    expect(pool.stats().openFailures).toBeLessThan(8)
  })

  test('Pool leaves an opening that never settles behind, and counts it until somebody made sure', async () => {
    const { pool, driver, clock } = rig({ max: 1, connectTimeoutMs: 1_000 })
    driver.behaviour.open = 'never'
    delete driver.reap
    const waiter = watch(pool.acquire({ timeoutMs: 4_000 }))
    await clock.advance(2_000)
    expect(pool.stats()).toMatchObject({ opening: 0, closing: 1, doubtful: 1 })
    await clock.advance(2_000)
    expect(waiter.error).toMatchObject({ phase: 'connect' })
    expect(driver.connections).toHaveLength(1)
  })
})

describe('Pool and idle connections', () => {
  test('Pool pings on the way out only after idleness, and a ping does not count as use', async () => {
    const { pool, driver, clock } = rig({ idleTimeoutMs: Infinity })
    await (await pool.acquire()).release()
    await clock.advance(1_000)
    await (await pool.acquire()).release()
    expect(driver.connections[0]?.pings).toBe(0)
    await clock.advance(1_001)
    await (await pool.acquire()).release()
    expect(driver.connections[0]?.pings).toBe(1)
  })

  test('Pool replaces connections that fail their ping within the same acquire', async () => {
    const { pool, driver, clock } = rig({ max: 3 })
    const leases = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()])
    for (const lease of leases) await lease.release()
    await clock.advance(1_001)
    driver.behaviour.ping = new Error('dead')
    const lease = await pool.acquire()
    expect(lease.connection.id).toBe(4)
    expect(pool.stats()).toMatchObject({ leased: 1, idle: 0, closes: { 'ping failed': 3 } })
  })

  test('Pool replaces a connection whose ping hangs while its caller still has time', async () => {
    const { pool, driver, clock } = rig({ max: 1 })
    await (await pool.acquire()).release()
    await clock.advance(1_001)
    driver.behaviour.ping = 'never'
    const waiter = watch(pool.acquire({ timeoutMs: 10_000 }))
    await clock.advance(3_000)
    expect(waiter.value?.connection.id).toBe(2)
  })

  test('Pool takes a connection that the server closes out of idle at once', async () => {
    const { pool, driver } = rig()
    await (await pool.acquire()).release()
    driver.connections[0]?.kill()
    expect(pool.stats().idle).toBe(0)
    expect((await pool.acquire()).connection.id).toBe(2)
  })

  test('Pool closes what nobody needed for the idle timeout, down to min', async () => {
    const { pool, driver, clock } = rig({ min: 1, max: 4, idleTimeoutMs: 1_000, pingAfterIdleMs: Infinity })
    const leases = await Promise.all(Array.from({ length: 4 }, () => pool.acquire()))
    for (const lease of leases) await lease.release()
    await clock.advance(900)
    expect(driver.counted).toBe(4)
    await clock.advance(600)
    expect(driver.counted).toBe(1)
    expect(pool.stats()).toMatchObject({ idle: 1, closes: { idle: 3 } })
    await clock.advance(60_000)
    expect(driver.counted).toBe(1)
  })

  test('Pool keeps as many as were in use at one time within the idle timeout', async () => {
    const { pool, driver, clock } = rig({ max: 4, idleTimeoutMs: 1_000, order: 'fifo' })
    const burst = async (size: number): Promise<void> => {
      const leases = await Promise.all(Array.from({ length: size }, () => pool.acquire()))
      for (const lease of leases) await lease.release()
    }
    await burst(4)
    for (let i = 0; i < 30; i++) {
      await burst(2)
      await clock.advance(100)
    }
    expect(driver.counted).toBe(2)
  })

  test('Pool closes nothing because the event loop was blocked', async () => {
    const { pool, driver, clock } = rig({ max: 4, idleTimeoutMs: 1_000, pingAfterIdleMs: Infinity })
    const leases = await Promise.all(Array.from({ length: 4 }, () => pool.acquire()))
    for (const lease of leases) await lease.release()
    await clock.stall(5_000)
    expect(driver.counted).toBe(4)
  })

  test('Pool replaces a connection past its lifetime at acquire, at release and in the sweep', async () => {
    const { pool, clock } = rig({ maxLifetimeMs: 10_000, idleTimeoutMs: Infinity, pingAfterIdleMs: Infinity })
    const first = await pool.acquire()
    await clock.advance(10_000)
    await first.release()
    await settled()
    expect(pool.stats().closes.lifetime).toBe(1)
    await (await pool.acquire()).release()
    await clock.advance(15_000)
    expect(pool.stats()).toMatchObject({ idle: 0, closes: { lifetime: 2 } })
  })

  test('Pool with maxIdle 0 keeps nothing but hands over to who waits', async () => {
    const { pool, driver } = rig({ max: 1, maxIdle: 0 })
    const first = await pool.acquire()
    const waiter = watch(pool.acquire())
    await first.release()
    await settled()
    expect(waiter.value?.connection.id).toBe(1)
    await waiter.value?.release()
    await settled()
    expect(driver.counted).toBe(0)
  })

  test('Pool holds the process for connections in use, from the next turn on not for idle ones', async () => {
    const { pool, driver, clock } = rig()
    const lease = await pool.acquire()
    expect(driver.connections[0]?.referenced).toBe(true)
    await lease.release()
    await turn()
    expect(driver.connections[0]?.referenced).toBe(false)
    expect(clock.timers.keepAlive).toBe(0)
    await clock.advance(1_001)
    const again = await pool.acquire()
    expect(driver.connections[0]?.referenced).toBe(true)
    await again.release()
    const inTheSameTurn = await pool.acquire()
    await turn()
    expect(driver.connections[0]?.referenced).toBe(true)
    await inTheSameTurn.release()
    await turn()
    expect(driver.connections[0]?.referenced).toBe(false)
  })
})

describe('Lease', () => {
  test('Lease.connection throws after the release, and a second release does nothing', async () => {
    const { pool } = rig({ max: 1 })
    const lease = await pool.acquire()
    await lease.release()
    expect(() => lease.connection).toThrow(LeaseReleasedError)
    const next = await pool.acquire()
    await lease.release()
    await lease.destroy()
    expect(pool.stats().leased).toBe(1)
    expect(next.connection.id).toBe(1)
  })

  test('Lease.release() resets a session that needs it, and waits for that', async () => {
    const { pool, driver } = rig()
    const gate = deferred<void>()
    driver.behaviour.reset = () => gate.promise
    const lease = await pool.acquire()
    lease.connection.dirty = true
    const released = watch(lease.release())
    await settled()
    expect(released.state).toBe('pending')
    expect(pool.stats()).toMatchObject({ idle: 0, leased: 0, open: 1 })
    gate.resolve()
    await settled()
    expect(released.state).toBe('resolved')
    expect(pool.stats().idle).toBe(1)
  })

  test('Lease.release() closes what cannot be reset, in silence, and who waits gets another one', async () => {
    const { pool, driver } = rig({ max: 1 })
    driver.behaviour.reset = new Error('cannot')
    const lease = await pool.acquire()
    lease.connection.dirty = true
    const waiter = watch(pool.acquire())
    await lease.release()
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
    expect(pool.stats().closes['reset failed']).toBe(1)
  })

  test('Lease.release() does not wait for a reset beyond resetTimeoutMs', async () => {
    const { pool, driver, clock } = rig({ resetTimeoutMs: 1_000 })
    driver.behaviour.reset = 'never'
    const lease = await pool.acquire()
    lease.connection.dirty = true
    const released = watch(lease.release())
    await clock.advance(2_000)
    expect(released.state).toBe('resolved')
    expect(driver.counted).toBe(0)
  })

  test('Lease.destroy() closes the connection and frees its permit for who waits', async () => {
    const { pool } = rig({ max: 1 })
    const lease = await pool.acquire()
    const waiter = watch(pool.acquire())
    await lease.destroy('it behaved oddly')
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
  })

  test('Lease whose connection dies frees its permit at once; its release is harmless', async () => {
    const { pool, driver } = rig({ max: 1 })
    const lease = await pool.acquire()
    const waiter = watch(pool.acquire())
    driver.connections[0]?.kill()
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
    await lease.release()
    expect(pool.stats()).toMatchObject({ leased: 1, open: 1 })
  })
})

describe('Pool and connections in doubt', () => {
  test('Pool counts a connection until the other side has let go', async () => {
    const { pool, driver } = rig({ max: 1 })
    const gate = deferred<void>()
    driver.behaviour.close = () => gate.promise
    const lease = await pool.acquire()
    const waiter = watch(pool.acquire())
    await lease.destroy()
    await settled()
    expect(pool.stats()).toMatchObject({ closing: 1, opening: 0 })
    expect(waiter.state).toBe('pending')
    gate.resolve()
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
    expect(driver.peak).toBe(1)
  })

  test('Pool reaps a connection whose close failed before its permit serves again', async () => {
    const { pool, driver, clock } = rig({ max: 1 })
    driver.behaviour.close = new Error('reset by peer')
    let sure = false
    driver.reap = async (identity) => {
      if (sure) driver.connections.find((one) => one.tag === identity.tag)?.letGo()
      return sure
    }
    const lease = await pool.acquire()
    const waiter = watch(pool.acquire())
    await lease.destroy()
    await clock.advance(1_000)
    expect(pool.stats()).toMatchObject({ closing: 1, doubtful: 1 })
    expect(waiter.state).toBe('pending')
    sure = true
    await clock.advance(1_000)
    expect(waiter.state).toBe('resolved')
    expect(pool.stats().doubtful).toBe(0)
    expect(driver.peak).toBe(1)
  })

  test('Pool reaps through a living connection where there is one', async () => {
    const { pool, driver } = rig({ max: 2 })
    const [first, second] = await Promise.all([pool.acquire(), pool.acquire()])
    await second.release()
    const vias: (number | undefined)[] = []
    driver.reap = async (_identity, { via }) => {
      vias.push(via?.id)
      return true
    }
    driver.behaviour.close = new Error('reset by peer')
    await first.destroy()
    await settled()
    expect(vias).toEqual([2])
    expect(pool.stats()).toMatchObject({ idle: 1, closing: 0, leased: 0 })
  })
})

describe('Pool.close()', () => {
  test('Pool.close() refuses who waits, waits for leases, and leaves nothing', async () => {
    const { pool, driver, clock } = rig({ max: 1 })
    const lease = await pool.acquire()
    const waiter = watch(pool.acquire())
    const closed = watch(pool.close())
    await settled()
    expect(waiter.error).toBeInstanceOf(PoolClosedError)
    await expect(pool.acquire()).rejects.toBeInstanceOf(PoolClosedError)
    expect(() => pool.tryAcquire()).toThrow(PoolClosedError)
    expect(closed.state).toBe('pending')
    await lease.release()
    await settled()
    expect(closed.value).toEqual({ revoked: 0 })
    expect(driver.counted).toBe(0)
    expect(clock.timers.all).toBe(0)
    expect(pool.stats()).toMatchObject({ phase: 'closed', open: 0, idle: 0, leased: 0, closing: 0, waiting: 0 })
    expect(await pool.close()).toEqual({ revoked: 0 })
  })

  test('Pool.close() revokes leases at its deadline, and their holders hear of it', async () => {
    const { pool, clock } = rig()
    const lease = await pool.acquire()
    const closed = watch(pool.close({ timeoutMs: 100 }))
    await clock.advance(100)
    expect(closed.value).toEqual({ revoked: 1 })
    expect(() => lease.connection).toThrow(LeaseRevokedError)
    await lease.release()
  })

  test('Pool.close() ends although the driver never does', async () => {
    const { pool, driver, clock } = rig()
    await pool.acquire()
    driver.behaviour.close = 'never'
    driver.reap = async () => false
    const closed = watch(pool.close({ timeoutMs: 100 }))
    await clock.advance(20_000)
    expect(closed.value).toEqual({ revoked: 1 })
    await clock.advance(20_000)
    expect(clock.timers.all).toBe(0)
  })

  test('Pool.close() closes a connection that was opening', async () => {
    const { pool, driver } = rig()
    const gate = deferred<void>()
    driver.behaviour.open = () => gate.promise
    const waiter = watch(pool.acquire())
    await settled()
    const closed = watch(pool.close())
    await settled()
    expect(waiter.error).toBeInstanceOf(PoolClosedError)
    gate.resolve()
    await settled()
    expect(closed.state).toBe('resolved')
    expect(driver.counted).toBe(0)
  })

  test('Pool.close() of a pool that was never used resolves at once', async () => {
    const { pool, driver } = rig({ min: 5 })
    expect(await pool.close()).toEqual({ revoked: 0 })
    expect(driver.connections).toHaveLength(0)
  })

  test('PoolClosedError shows where the pool was closed', async () => {
    const { pool } = rig({ name: 'api' })
    await pool.close()
    const error = await pool.acquire().catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'ERR_POOL_CLOSED', message: expect.stringContaining('"api"') })
    expect((error as Error & { cause: Error }).cause.stack).toContain('pool.test.ts')
  })
})
