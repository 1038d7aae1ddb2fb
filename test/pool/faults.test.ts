import { getEventListeners } from 'node:events'
import { describe, expect, test } from 'vitest'
import { deferred } from '../../src/deferred.ts'
import { Lull } from '../../src/lull.ts'
import type { Permit, Permits } from '../../src/permits.ts'
import { FakeDriver, settled } from '../../src/testing/index.ts'
import { Core } from '../../src/core.ts'
import { Silent, rig, watch } from './support.ts'

describe('a driver that misbehaves', () => {
  test('an open that rejects long after its deadline frees its permit, where nobody can reap', async () => {
    const { pool, driver, clock } = rig({ max: 1, connectTimeoutMs: 100 })
    const gate = deferred<void>()
    driver.behaviour.open = () => gate.promise
    delete driver.reap
    const first = watch(pool.acquire({ timeoutMs: 1_000 }))
    await clock.advance(1_000)
    expect(first.state).toBe('rejected')
    expect(pool.stats()).toMatchObject({ closing: 1, doubtful: 1 })
    driver.behaviour.open = 'ok'
    gate.reject(new Error('too late'))
    await settled()
    expect(pool.stats()).toMatchObject({ closing: 0, doubtful: 0 })
    expect((await pool.acquire()).connection.id).toBe(2)
  })

  test('an open that resolves long after its deadline is closed, and its permit serves again', async () => {
    const { pool, driver, clock } = rig({ max: 1, connectTimeoutMs: 100 })
    const gate = deferred<void>()
    driver.behaviour.open = () => gate.promise
    delete driver.reap
    const first = watch(pool.acquire({ timeoutMs: 1_000 }))
    await clock.advance(1_000)
    driver.behaviour.open = 'ok'
    gate.resolve()
    await settled()
    expect([first.state, driver.counted]).toEqual(['rejected', 0])
    expect((await pool.acquire()).connection.id).toBe(2)
  })

  test('a connection that is dead when it is opened is not lent, and counts as a failure to connect', async () => {
    const { pool, driver, clock } = rig()
    driver.behaviour.open = (connection) => {
      connection.broken = connection.id < 3
    }
    const lease = watch(pool.acquire())
    await clock.advance(200)
    expect(lease.value?.connection.id).toBe(3)
    expect(pool.stats()).toMatchObject({ openFailures: 2, opens: 1 })
  })

  test('an identity that throws is a failed open, and leaves nothing behind', async () => {
    const { pool, driver, clock } = rig()
    driver.identity = () => {
      throw new Error('who is it?')
    }
    const lease = watch(pool.acquire({ timeoutMs: 300 }))
    await clock.advance(300)
    expect(lease.error).toMatchObject({ phase: 'connect', cause: { message: expect.stringContaining('who is it?') } })
    expect(driver.counted).toBe(0)
    expect(pool.stats()).toMatchObject({ opening: 0, closing: 0 })
  })

  test.each(['needsReset', 'isBroken'] as const)('%s that throws closes the connection on release', async (name) => {
    const { pool, driver } = rig({ max: 1 })
    const lease = await pool.acquire()
    driver[name] = () => {
      throw new Error('I do not know')
    }
    await lease.release()
    await settled()
    expect(pool.stats()).toMatchObject({ leased: 0, open: 0, badReturns: 1 })
  })
})

describe('waiters', () => {
  test('waiters whose connections turn out dead keep their order', async () => {
    const { pool, driver, clock } = rig({ max: 3 })
    const leases = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()])
    for (const lease of leases) await lease.release()
    await clock.advance(1_001)
    const order: string[] = []
    driver.behaviour.ping = new Error('dead')
    const gate = deferred<void>()
    driver.behaviour.open = () => gate.promise
    const all = ['A', 'B', 'C', 'D'].map(async (name) => {
      const lease = await pool.acquire()
      order.push(name)
      await lease.release()
    })
    await settled()
    gate.resolve()
    await Promise.all(all)
    expect(order).toEqual(['A', 'B', 'C', 'D'])
  })

  test('an acquire takes its listener off its signal, however it ends', async () => {
    const { pool, clock } = rig({ max: 1 })
    const { signal } = new AbortController()
    const held = await pool.acquire({ signal })
    const served = watch(pool.acquire({ signal }))
    const late = watch(pool.acquire({ signal, timeoutMs: 10 }))
    expect(getEventListeners(signal, 'abort')).toHaveLength(2)
    await clock.advance(10)
    expect(late.state).toBe('rejected')
    await held.release()
    await settled()
    expect(served.state).toBe('resolved')
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  })

  test('an abort that comes when the lease has been decided on already loses no lease', async () => {
    const controller = new AbortController()
    const { pool } = rig({ max: 1, log: ({ type }) => type === 'millpond:release' && controller.abort() })
    const held = await pool.acquire()
    const waiter = watch(pool.acquire({ signal: controller.signal }))
    await held.release()
    await settled()
    // One of the two, and nothing in between.
    if (waiter.state === 'resolved') await waiter.value?.release()
    await settled()
    expect(pool.stats()).toMatchObject({ leased: 0, idle: 1 })
  })

  test('Pool.acquire({ timeoutMs: 0 }) waits for a ping, and for nothing if that fails', async () => {
    const { pool, driver, clock } = rig({ max: 1 })
    await (await pool.acquire()).release()
    await clock.advance(1_001)
    driver.behaviour.ping = () => new Promise((resolve) => void clock.setTimer(resolve, 20))
    const first = watch(pool.acquire({ timeoutMs: 0 }))
    await clock.advance(20)
    expect(first.state).toBe('resolved')
    await first.value?.release()
    await clock.advance(1_001)
    driver.behaviour.ping = new Error('dead')
    const second = watch(pool.acquire({ timeoutMs: 0 }))
    await settled()
    expect(second.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', timeoutMs: 0 })
    expect(pool.stats().waiting).toBe(0)
  })
})

describe('time', () => {
  test('a pool that may not open, because others hold the permits, sets no timer for its backoff', () => {
    const none: Permits = {
      lull: new Lull(),
      unsettled: false,
      enrol: () => {},
      settle: () => {},
      yields: () => false,
      opened: () => {},
      closing: () => {},
      give: () => {},
      leave: () => {},
    }
    const core = new Core<object>(
      {
        name: 'p',
        min: 0,
        max: 2,
        maxIdle: 2,
        order: 'lifo',
        maxWaiting: Infinity,
        idleTimeoutMs: Infinity,
        maxLifetimeMs: Infinity,
        maxUses: Infinity,
        pingAfterIdleMs: 0,
        timings: false,
      },
      none,
      () => 0.5,
    )
    core.wait(new Silent(0, Infinity), 0)
    const permit: Permit = { tag: 't' }
    core.open(permit, 0)
    const [open] = core.actions.splice(0)
    if (open?.do !== 'open') throw new Error('it opens')
    core.openFailed(open.slot, new Error('refused'), 0)
    core.open(permit, 0)
    const [again] = core.actions.splice(0)
    if (again?.do !== 'open') throw new Error('it opens')
    core.openFailed(again.slot, new Error('refused'), 0)
    expect([core.lacking(10), core.retryAt]).toEqual([0, 50])
    expect([core.lacking(1_000), core.retryAt]).toEqual([1, 50])
  })

  test('Pool.close() does not wait for a connect that hangs', async () => {
    const driver = new FakeDriver()
    const { pool, clock } = rig({}, driver)
    driver.open = ({ signal }) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error))
      })
    void watch(pool.acquire())
    await settled()
    const closed = watch(pool.close())
    await clock.advance(600)
    expect(closed.state).toBe('resolved')
  })
})

test('Of several connections in doubt one at a time is reaped from a connection beside the limit', async () => {
  const { pool, driver, clock } = rig({ max: 3 })
  const leases = await Promise.all([pool.acquire(), pool.acquire(), pool.acquire()])
  driver.behaviour.close = 'never'
  let bare = 0
  let most = 0
  let ended = 0
  driver.reap = async (_, { via }) => {
    if (!via) most = Math.max(most, ++bare)
    await new Promise<void>((resolve) => void clock.setTimer(resolve, 300))
    if (!via) bare--
    ended++
    return true
  }
  for (const lease of leases) await lease.destroy()
  while (ended < 3) await clock.advance(100)
  await settled()
  expect([most, pool.stats().doubtful]).toEqual([1, 0])
})
