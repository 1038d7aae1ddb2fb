// Shown elsewhere:
//   37  test/postgres/pool.test.ts 'PostgresLease.release() lets a query finish that was not awaited', '… cancel() …'
//   42  also pool.test.ts 'Pool.acquire() that is aborted while its connection opens leaves that connection idle'
//   47  gates.test.ts 'a pool keeps to its size and answers everybody, …'

import { expect, test } from 'vitest'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { after, lease, releaseAll } from './support.ts'

test('a release that nobody waits for any more still brings its connection back', async () => {
  const { pool, driver, clock } = rig({ max: 1 })
  driver.behaviour.reset = () => after(clock, 200)
  const one = await pool.acquire()
  one.connection.dirty = true
  void one.release()
  await clock.advance(199)
  expect(pool.stats()).toMatchObject({ idle: 0, leased: 0, open: 1 })
  await clock.advance(1)
  expect(pool.stats()).toMatchObject({ idle: 1, open: 1 })
}) // case 36

// Ours differs: an answer that has been given is not taken back. The caller gets the lease, or the error, never neither.
test('an abort that comes after the grant, in the same turn, leaves the lease with its caller', async () => {
  const { pool } = rig({ max: 1 })
  const held = await pool.acquire()
  const controller = new AbortController()
  const waiter = watch(pool.acquire({ signal: controller.signal }))
  await settled()
  const released = held.release()
  controller.abort()
  await released
  await settled()
  expect(waiter.state).toBe('resolved')
  expect(pool.stats()).toMatchObject({ leased: 1, aborted: 0 })
  await waiter.value?.release()
  expect(pool.stats()).toMatchObject({ leased: 0, idle: 1 })
}) // case 39, K10

test('an abort that comes before the grant, in the same turn, leaves the connection to the next in line', async () => {
  const { pool } = rig({ max: 1 })
  const held = await pool.acquire()
  const controller = new AbortController()
  const first = watch(pool.acquire({ signal: controller.signal }))
  const second = watch(pool.acquire())
  await settled()
  controller.abort()
  await held.release()
  await settled()
  expect([first.state, second.state]).toEqual(['rejected', 'resolved'])
}) // case 39, K10

test('an acquire that is aborted during the ping leaves the connection where the next acquire finds it', async () => {
  const { pool, driver, clock } = rig({ max: 1, min: 1 })
  await pool.open()
  await clock.advance(2_000)
  driver.behaviour.ping = () => after(clock, 100)
  const controller = new AbortController()
  const waiter = watch(pool.acquire({ signal: controller.signal }))
  await clock.advance(50)
  controller.abort()
  await settled()
  expect(waiter.state).toBe('rejected')
  await clock.advance(50)
  expect(pool.stats()).toMatchObject({ idle: 1, open: 1 })
  const next = watch(pool.acquire())
  await clock.advance(100)
  expect(next.value?.connection.id).toBe(1)
}) // case 40

test('a reset that is cancelled costs the connection, not its place', async () => {
  const { pool, driver } = rig({ max: 1, min: 1 })
  driver.behaviour.reset = () => Promise.reject(new DOMException('cancelled', 'AbortError'))
  const one = await pool.acquire()
  one.connection.dirty = true
  await one.release()
  await settled()
  expect(pool.stats()).toMatchObject({ open: 1, idle: 1, closing: 0 })
  expect((await pool.acquire()).connection.id).toBe(2)
}) // case 41

test('an acquire that is aborted fails at once; the connection it asked for is finished and rests', async () => {
  const { pool, driver, clock } = rig()
  driver.behaviour.open = () => after(clock, 100)
  const controller = new AbortController()
  const waiter = watch(pool.acquire({ signal: controller.signal }))
  await clock.advance(25)
  controller.abort()
  await settled()
  expect([waiter.state, pool.stats().opening]).toEqual(['rejected', 1])
  await clock.advance(75)
  expect(pool.stats()).toMatchObject({ idle: 1, open: 1, aborted: 1 })
}) // case 42

// Ours differs in one half: an open belongs to the pool, which may give it to somebody else; it is handed no value of
// the acquire that asked for it.
test('an open does not hear of the deadline of the acquire that asked for it', async () => {
  const { pool, driver, clock } = rig({ connectTimeoutMs: 1_000 })
  const signals: AbortSignal[] = []
  const open = driver.open.bind(driver)
  driver.open = (options) => {
    signals.push(options.signal)
    return open(options)
  }
  driver.behaviour.open = () => after(clock, 500)
  const waiter = watch(pool.acquire({ timeoutMs: 100 }))
  await clock.advance(400)
  expect([waiter.state, signals.length, signals[0]?.aborted]).toEqual(['rejected', 1, false])
  await clock.advance(100)
  expect(pool.stats().idle).toBe(1)
}) // case 44

// Ours differs for the first: an acquire that never began is not counted.
test('aborts while connecting and while waiting are counted, and are no acquires', async () => {
  const { pool, driver } = rig({ max: 1 })
  await expect(pool.acquire({ signal: AbortSignal.abort(new Error('before')) })).rejects.toThrow('before')
  expect(pool.stats()).toMatchObject({ aborted: 0, acquires: 0, opening: 0 })
  driver.behaviour.open = 'never'
  const during = new AbortController()
  void watch(pool.acquire({ signal: during.signal }))
  void watch(pool.acquire({ signal: during.signal }))
  await settled()
  during.abort()
  await settled()
  expect(pool.stats()).toMatchObject({ aborted: 2, acquires: 0, waiting: 0 })
}) // case 45

test('acquires that were aborted in the queue have eaten no place of those who come later', async () => {
  const { pool, driver } = rig({ max: 3 })
  const held = await lease(pool, 3)
  const controller = new AbortController()
  const gone = Array.from({ length: 3 }, () => watch(pool.acquire({ signal: controller.signal })))
  await settled()
  controller.abort()
  await settled()
  expect(gone.map(({ state }) => state)).toEqual(['rejected', 'rejected', 'rejected'])
  await releaseAll(held)
  await releaseAll(await lease(pool, 3))
  expect(pool.stats()).toMatchObject({ idle: 3, waiting: 0 })
  expect(driver.connections).toHaveLength(3)
}) // case 46

test('a caller who gave up by its own timer is not served behind its back', async () => {
  const { pool, clock } = rig({ max: 1 })
  const held = await pool.acquire()
  const controller = new AbortController()
  clock.setTimer(() => controller.abort(new Error('too slow')), 100)
  const gone = watch(pool.acquire({ signal: controller.signal }))
  await clock.advance(100)
  expect(gone.error).toEqual(new Error('too slow'))
  await held.release()
  expect(pool.tryAcquire()).toBeDefined()
}) // case 48

test('an acquire that is called wrongly rejects, and the pool goes on', async () => {
  const { pool } = rig({ max: 1 })
  await expect(pool.acquire(null as never)).rejects.toBeInstanceOf(TypeError)
  await expect(pool.acquire({ signal: {} as never })).rejects.toBeInstanceOf(TypeError)
  await expect(pool.acquire({ timeoutMs: 'soon' as never })).rejects.toMatchObject({ code: 'ERR_OPTION' })
  expect(await pool.use(({ id }) => id)).toBe(1)
  expect(pool.stats()).toMatchObject({ waiting: 0, leased: 0, idle: 1 })
}) // case 49
