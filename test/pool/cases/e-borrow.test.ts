// Shown elsewhere:
//   67  pool.test.ts 'Pool replaces a connection whose ping hangs while its caller still has time' (a ping has 2 s)
//   79  hooks.test.ts 'onAcquire refuses a connection …' (ours differs: what did not pass its check is never put back)
//   80  pool.test.ts 'Lease whose connection dies frees its permit at once; its release is harmless'

import { expect, test } from 'vitest'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { lease, releaseAll } from './support.ts'

test('one acquire drops all idle connections that died without a word, and is served by a new one', async () => {
  const { pool, driver, clock } = rig({ max: 5 })
  await releaseAll(await lease(pool, 3))
  await clock.advance(1_001)
  for (const connection of driver.connections) connection.broken = true
  const one = await pool.acquire()
  expect(one.connection.id).toBe(4)
  expect(driver.connections.slice(0, 3).map(({ pings }) => pings)).toEqual([1, 1, 1])
  expect(pool.stats()).toMatchObject({ open: 1, leased: 1, closes: { 'ping failed': 3 } })
}) // case 66

// Ours differs: what onAcquire throws is told to those who watch, not to the caller, who wants a connection.
test.each<[string, () => unknown, number]>([
  ['returns true', () => true, 1],
  ['returns nothing', () => undefined, 1],
  ['returns false', () => false, 2],
  [
    'throws',
    () => {
      throw new Error('no')
    },
    2,
  ],
  ['rejects', () => Promise.reject(new Error('no')), 2],
])('where onAcquire %s the caller gets the connection that it let pass', async (_, answer, id) => {
  const { pool, driver } = rig({ max: 1, onAcquire: (connection) => (connection.id === 1 ? answer() : true) })
  expect((await pool.acquire()).connection.id).toBe(id)
  expect(driver.counted).toBe(1)
}) // case 69

test('an acquire goes through any number of dead idle connections to a living one', async () => {
  const { pool, driver, clock } = rig({ max: 20 })
  await releaseAll(await lease(pool, 20))
  await clock.advance(1_001)
  for (const connection of driver.connections) connection.broken = true
  expect((await pool.acquire()).connection.id).toBe(21)
  expect(pool.stats()).toMatchObject({ open: 1, acquires: 21 })
}) // case 70

test('with a ping each time, a fresh connection gets none, later leases one each, a replacement none', async () => {
  const { pool, driver, clock } = rig({ max: 1, pingAfterIdleMs: 0 })
  const use = async (): Promise<number> => {
    await clock.advance(1)
    return pool.use(({ id }) => id)
  }
  await use()
  expect(driver.connections[0]?.pings).toBe(0)
  await use()
  await use()
  expect(driver.connections[0]?.pings).toBe(2)
  for (const connection of driver.connections) connection.broken = true
  expect(await use()).toBe(2)
  expect(driver.connections.map(({ pings }) => pings)).toEqual([3, 0])
}) // case 72

// Ours differs for a server that is down: the acquire tries on until its deadline, whose cause is the failure.
test('a restart of the server is not noticed by who acquires; its absence is, by the cause', async () => {
  const { pool, driver, clock } = rig({ max: 1, pingAfterIdleMs: 0 })
  await pool.use(() => {})
  await clock.advance(1)
  for (const connection of driver.connections) connection.broken = true
  expect(await pool.use(({ id }) => id)).toBe(2)
  await clock.advance(1)
  for (const connection of driver.connections) connection.broken = true
  driver.behaviour.open = new Error('no server')
  const waiter = watch(pool.acquire({ timeoutMs: 500 }))
  await clock.advance(500)
  expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', cause: new Error('no server') })
}) // case 73

test('a ping that hangs is made once, and the acquire tells what came after it', async () => {
  const { pool, driver, clock } = rig({ max: 1 })
  await pool.use(() => {})
  await clock.advance(1_001)
  driver.behaviour.ping = 'never'
  driver.behaviour.open = new Error('no server')
  const waiter = watch(pool.acquire({ timeoutMs: 5_000 }))
  await clock.advance(5_000)
  expect(driver.connections[0]?.pings).toBe(1)
  expect(waiter.error).toMatchObject({ phase: 'connect', waitedMs: 5_000, cause: new Error('no server') })
}) // case 76

test('a check that finds the server down ends at the deadline, and the pool works when it is back', async () => {
  const { pool, driver, clock } = rig({ max: 2, pingAfterIdleMs: 0, acquireTimeoutMs: 1_000 })
  await releaseAll(await lease(pool, 2))
  await clock.advance(1)
  driver.behaviour.ping = new Error('no server')
  driver.behaviour.open = new Error('no server')
  const waiter = watch(pool.acquire())
  await clock.advance(999)
  expect(waiter.state).toBe('pending')
  await clock.advance(1)
  expect(waiter.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT' })
  driver.behaviour.ping = 'ok'
  driver.behaviour.open = 'ok'
  const next = watch(pool.acquire())
  await clock.advance(999)
  expect(next.state).toBe('resolved')
}) // case 77

test('a check that fails every time is tried at once, then with growing pauses', async () => {
  const at: number[] = []
  const { pool, clock } = rig({
    onAcquire: () => {
      at.push(clock.now() - startedAt)
      return false
    },
  })
  const startedAt = clock.now()
  const waiter = watch(pool.acquire({ timeoutMs: 1_000 }))
  await clock.advance(1_000)
  expect(waiter.state).toBe('rejected')
  const pauses = at.slice(1).map((time, i) => time - (at[i] ?? 0))
  expect(pauses.shift()).toBe(0)
  for (const [i, nominal] of [50, 100, 200, 400].entries()) {
    expect(pauses[i]).toBeGreaterThanOrEqual(nominal * 0.9)
    expect(pauses[i]).toBeLessThanOrEqual(nominal * 1.1)
  }
  expect(pauses).toHaveLength(4)
}) // case 78

test('after the server has ended all idle connections the next acquire gets a good one', async () => {
  const { pool, driver } = rig({ max: 5 })
  await releaseAll(await lease(pool, 5))
  for (const connection of driver.connections.slice()) connection.kill()
  const one = await pool.acquire()
  expect([one.connection.id, one.connection.broken]).toEqual([6, false])
}) // case 81

test('idle connections that are all dead are counted as such, also where none can be opened', async () => {
  const { pool, driver, clock } = rig({ max: 2, pingAfterIdleMs: 0 })
  await releaseAll(await lease(pool, 2))
  await clock.advance(1)
  for (const connection of driver.connections) connection.broken = true
  driver.behaviour.open = new Error('no server')
  const waiter = watch(pool.acquire({ timeoutMs: 100 }))
  await clock.advance(100)
  expect(waiter.state).toBe('rejected')
  expect(pool.stats()).toMatchObject({ open: 0, closes: { 'ping failed': 2 } })
}) // case 82

test('an error in use retires the connection if the driver takes it for broken, and only then', async () => {
  const { pool } = rig({ max: 5 })
  const leases = await lease(pool, 5)
  await releaseAll(leases)
  const failing = async (fatal: boolean): Promise<void> => {
    await pool.use((connection) => {
      connection.broken = fatal
      throw new Error('of the server')
    })
  }
  await expect(failing(false)).rejects.toThrow('of the server')
  await settled()
  expect(pool.stats()).toMatchObject({ idle: 5, open: 5 })
  await expect(failing(true)).rejects.toThrow('of the server')
  await settled()
  expect(pool.stats()).toMatchObject({ idle: 4, open: 4, closes: { broken: 1 } })
}) // case 84
