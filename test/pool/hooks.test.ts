import { describe, expect, test } from 'vitest'
import { deferred } from '../../src/deferred.ts'
import { settled } from '../../src/testing/index.ts'
import type { FakeConnection } from '../../src/testing/index.ts'
import { rig, watch } from './support.ts'

describe('onOpen', () => {
  test('onOpen configures a connection once, before anybody gets it', async () => {
    const configured: number[] = []
    const gate = deferred<void>()
    const { pool } = rig({
      onOpen: async (connection) => {
        configured.push(connection.id)
        await gate.promise
      },
    })
    const lease = watch(pool.acquire())
    await settled()
    expect([configured, lease.state]).toEqual([[1], 'pending'])
    gate.resolve()
    await settled()
    await lease.value?.release()
    await (await pool.acquire()).release()
    expect(configured).toEqual([1])
  })

  test('onOpen that throws closes the connection and counts as a failure to connect', async () => {
    const { pool, driver, clock } = rig({
      onOpen: () => {
        throw new Error('not as configured')
      },
    })
    const acquire = watch(pool.acquire({ timeoutMs: 400 }))
    await clock.advance(400)
    expect(acquire.error).toMatchObject({
      code: 'ERR_ACQUIRE_TIMEOUT',
      phase: 'connect',
      cause: { code: 'ERR_CONNECT', message: 'A new connection is of no use: not as configured' },
    })
    // At once, then backed off: no busy loop.
    expect(driver.connections.length).toBeLessThan(7)
    expect(driver.counted).toBe(0)
    expect(pool.stats()).toMatchObject({ opens: 0, closing: 0 })
  })

  test('onOpen that never settles ends with the deadline of the connect', async () => {
    const { pool, driver, clock } = rig({ onOpen: () => new Promise(() => {}), connectTimeoutMs: 100 })
    const acquire = watch(pool.acquire({ timeoutMs: 1_000 }))
    await clock.advance(2_000)
    expect(acquire.error).toMatchObject({ phase: 'connect' })
    expect(driver.counted).toBe(0)
  })
})

describe('onAcquire', () => {
  test('onAcquire refuses a connection: it closes, and the acquire goes on with the next one', async () => {
    const seen: number[] = []
    const { pool, driver } = rig({
      max: 2,
      onAcquire: (connection) => {
        seen.push(connection.id)
        return connection.id !== 1
      },
    })
    const lease = await pool.acquire()
    expect(lease.connection.id).toBe(2)
    expect(seen).toEqual([1, 2])
    expect(driver.counted).toBe(1)
    expect(pool.stats()).toMatchObject({ leased: 1, acquires: 1, closes: { refused: 1 } })
  })

  test('onAcquire sees every connection each time, also one that is handed from lease to waiter', async () => {
    let asked = 0
    const { pool } = rig({
      max: 1,
      onAcquire: async () => {
        asked++
      },
    })
    const first = await pool.acquire()
    const waiter = watch(pool.acquire())
    await first.release()
    await settled()
    expect(waiter.state).toBe('resolved')
    expect(asked).toBe(2)
  })

  test('onAcquire that always refuses does not spin, and the acquire meets its deadline', async () => {
    const { pool, driver, clock } = rig({ onAcquire: () => Promise.reject(new Error('never good enough')) })
    const acquire = watch(pool.acquire({ timeoutMs: 1_000 }))
    await clock.advance(1_000)
    expect(acquire.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', cause: new Error('never good enough') })
    expect(driver.connections.length).toBeLessThan(9)
    expect(pool.stats().waiting).toBe(0)
  })

  test('onAcquire that never settles is left at the deadline of the acquire', async () => {
    const { pool, driver, clock } = rig({ max: 1, onAcquire: () => new Promise(() => {}) })
    const acquire = watch(pool.acquire({ timeoutMs: 500 }))
    await clock.advance(500)
    expect(acquire.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'ping' })
    await clock.advance(1_000)
    expect(driver.counted).toBe(0)
    expect(pool.stats()).toMatchObject({ open: 0, closing: 0 })
  })

  test('Pool.tryAcquire() lends what onAcquire lets pass at once, and nothing that it takes its time over', async () => {
    let answer: unknown = true
    let asked = 0
    const { pool } = rig({
      onAcquire: () => {
        asked++
        return answer
      },
    })
    const both = [await pool.acquire(), await pool.acquire()]
    for (const lease of both) await lease.release()
    asked = 0
    const lease = pool.tryAcquire()
    expect(lease).toBeDefined()
    await lease?.release()
    answer = Promise.resolve(true)
    expect(pool.tryAcquire()).toBeUndefined()
    // The lease of before, and one of the two: the other one would take as long.
    expect(asked).toBe(2)
    await settled()
    expect(pool.stats()).toMatchObject({ idle: 2, leased: 0 })
    answer = false
    expect(pool.tryAcquire()).toBeUndefined()
    await settled()
    expect(pool.stats()).toMatchObject({ open: 0, closes: { refused: 2 } })
  })
})

describe('onRelease', () => {
  test('onRelease that refuses or throws closes the connection, in silence; who waits gets another one', async () => {
    const { pool } = rig({ max: 1, onRelease: (connection: FakeConnection) => connection.id !== 1 })
    const first = await pool.acquire()
    const waiter = watch(pool.acquire())
    await first.release()
    await settled()
    expect(waiter.value?.connection.id).toBe(2)
    expect(pool.stats()).toMatchObject({ badReturns: 1, closes: { 'reset failed': 1 } })
  })

  test('onRelease comes after the reset, within resetTimeoutMs', async () => {
    const order: string[] = []
    const { pool, driver, clock } = rig({
      resetTimeoutMs: 1_000,
      onRelease: () => {
        order.push('onRelease')
        return new Promise(() => {})
      },
    })
    driver.behaviour.reset = () => void order.push('reset')
    const lease = await pool.acquire()
    lease.connection.dirty = true
    const released = watch(lease.release())
    await clock.advance(2_000)
    expect(order).toEqual(['reset', 'onRelease'])
    expect(released.state).toBe('resolved')
    expect(driver.counted).toBe(0)
  })
})

describe('onClose', () => {
  test('onClose hears of each end once, with the reason, when it is certain', async () => {
    const ends: [number, string][] = []
    const events: unknown[] = []
    const gate = deferred<void>()
    const { pool, driver } = rig({
      onClose: (connection, reason) => {
        ends.push([connection.id, reason])
        throw new Error('mine')
      },
      log: (event) => void events.push(event.type),
    })
    driver.behaviour.close = () => gate.promise
    const lease = await pool.acquire()
    await lease.destroy()
    await settled()
    expect(ends).toEqual([])
    gate.resolve()
    await settled()
    expect(ends).toEqual([[1, 'destroyed']])
    expect(events).toContain('millpond:hook-error')
  })
})

test('a hook that is no function is refused', () => {
  expect(() => rig({ onOpen: 'configure' as never })).toThrow(
    expect.objectContaining({ code: 'ERR_OPTION', option: 'onOpen' }),
  )
})
