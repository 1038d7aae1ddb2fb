// Shown elsewhere:
//   53  pool.test.ts 'Pool tries again at once, then backs off from 50 ms, doubling, ±10 %'
//   57  also hooks.test.ts 'onOpen that throws closes the connection and counts as a failure to connect'; a transaction
//       that is left open is the driver's to see: test/postgres/hooks.test.ts 'onOpen must leave no transaction, …'
//   64  pool.test.ts 'Pool fails all present waiters at once when retrying cannot help …': whether one attempt is all
//       is for the driver's error to say, not an option

import { expect, test } from 'vitest'
import type { PoolEvent } from '../../../src/watch.ts'
import { settled } from '../../../src/testing/index.ts'
import { rig, watch } from '../support.ts'
import { lease, releaseAll } from './support.ts'

test('waiters are served although the open that replaces a destroyed connection fails at first', async () => {
  const { pool, driver, clock } = rig({ max: 1 })
  const held = await pool.acquire()
  const waiters = [watch(pool.use(({ id }) => id)), watch(pool.use(({ id }) => id))]
  await settled()
  driver.behaviour.open = ({ id }) => {
    if (id === 2) throw new Error('refused')
  }
  await held.destroy()
  await clock.advance(1)
  expect(waiters.map(({ value }) => value)).toEqual([3, 3])
}) // case 50

test('while the first open fails two wait; both are served by the one that succeeds', async () => {
  const { pool, driver, clock } = rig({ max: 1 })
  let failing = true
  driver.behaviour.open = () => {
    if (failing) throw new Error('refused')
  }
  const waiters = [watch(pool.acquire()), watch(pool.acquire())]
  expect(pool.stats()).toMatchObject({ open: 0, opening: 1, waiting: 2 })
  await clock.advance(1)
  expect(pool.stats()).toMatchObject({ open: 0, opening: 0, waiting: 2, openFailures: 2 })
  failing = false
  await clock.advance(60)
  expect(pool.stats()).toMatchObject({ open: 1, leased: 1, idle: 0, waiting: 1 })
  await waiters[0]?.value?.release()
  await settled()
  expect(pool.stats()).toMatchObject({ open: 1, leased: 1, idle: 0, waiting: 0 })
  await waiters[1]?.value?.release()
  expect(pool.stats()).toMatchObject({ open: 1, leased: 0, idle: 1, waiting: 0 })
}) // case 52

// Ours differs: nobody is called when "reconnecting has failed", there is no such end; each attempt is an event.
test('a server that was down costs nobody time once it is back and the pause is over', async () => {
  const events: PoolEvent[] = []
  const { pool, driver, clock } = rig({
    log: (event) => void (event.type === 'millpond:connect-error' && events.push(event)),
  })
  driver.behaviour.open = new Error('down')
  const waiter = watch(pool.acquire({ timeoutMs: 1_000 }))
  await clock.advance(1_000)
  expect(waiter.state).toBe('rejected')
  expect(pool.stats()).toMatchObject({ open: 0, opening: 0, closing: 0, waiting: 0 })
  expect(events).toHaveLength(pool.stats().openFailures)
  driver.behaviour.open = 'ok'
  await clock.advance(1_000)
  await pool.acquire({ timeoutMs: 1 })
}) // case 54

test('a pool that failed while it grew serves its clients and fills up to min when the server is back', async () => {
  const { pool, driver, clock } = rig({ min: 4, max: 6, idleTimeoutMs: Infinity })
  await pool.open()
  const held = await lease(pool, 4)
  driver.behaviour.open = new Error('down')
  const clients = [watch(pool.use(({ id }) => id)), watch(pool.use(({ id }) => id))]
  await clock.advance(10)
  for (const connection of driver.connections.slice(0, 4)) connection.kill()
  await releaseAll(held)
  await clock.advance(1_000)
  expect(pool.stats()).toMatchObject({ open: 0, waiting: 2 })
  driver.behaviour.open = 'ok'
  await clock.advance(5_500)
  expect(clients.map(({ state }) => state)).toEqual(['resolved', 'resolved'])
  expect(pool.stats()).toMatchObject({ idle: 4, open: 4 })
}) // case 55

test('a pool that lost everything fills up to min by itself when the server is back', async () => {
  const { pool, driver, clock } = rig({ min: 4 })
  await pool.open()
  driver.behaviour.open = new Error('down')
  for (const connection of driver.connections.slice(0, 4)) connection.kill()
  await clock.advance(2_000)
  expect(pool.stats()).toMatchObject({ open: 0, waiting: 0 })
  driver.behaviour.open = 'ok'
  await clock.advance(5_500)
  expect(pool.stats()).toMatchObject({ idle: 4, acquires: 0 })
}) // case 56

test('Pool.open() meets its deadline where onOpen refuses every connection, and says why', async () => {
  const { pool, driver, clock } = rig({
    min: 2,
    acquireTimeoutMs: 1_000,
    onOpen: () => Promise.reject(new Error('no such role')),
  })
  const opened = watch(pool.open())
  await clock.advance(1_000)
  expect(opened.error).toMatchObject({
    code: 'ERR_ACQUIRE_TIMEOUT',
    phase: 'connect',
    message: expect.stringContaining('no such role'),
  })
  expect(driver.counted).toBe(0)
}) // case 57

test('onOpen that throws, whatever it throws, gives the place back; the next acquire gets a fresh connection', async () => {
  for (const thrown of [new Error('plain'), 'a string', undefined, null, { odd: true }]) {
    const seen: number[] = []
    let failing = false
    const { pool, driver, clock } = rig({
      max: 1,
      onOpen: ({ id }) => {
        seen.push(id)
        if (failing) throw thrown
      },
    })
    await (await pool.acquire()).destroy('invalid')
    failing = true
    const failed = watch(pool.acquire({ timeoutMs: 10 }))
    await clock.advance(10)
    expect(failed.error).toMatchObject({ cause: { code: 'ERR_CONNECT' } })
    expect(driver.counted).toBe(0)
    failing = false
    await clock.advance(1_000)
    const next = await pool.acquire({ timeoutMs: 1 })
    expect(next.connection.id).toBe(seen.at(-1))
    expect(pool.stats()).toMatchObject({ open: 1, leased: 1, closing: 0 })
  }
}) // case 59

// Ours differs: an acquire does not fail with its first connection, it goes on until its deadline.
test('where onOpen refuses every other connection, every acquire is served, and the numbers stay right', async () => {
  const { pool, driver, clock } = rig({
    max: 3,
    onOpen: ({ id }) => (id % 2 === 1 ? Promise.reject(new Error('odd')) : undefined),
  })
  const leases = [watch(pool.acquire()), watch(pool.acquire()), watch(pool.acquire())]
  await clock.advance(1_000)
  expect(leases.map(({ value }) => (value?.connection.id ?? 1) % 2)).toEqual([0, 0, 0])
  expect(pool.stats()).toMatchObject({ open: 3, leased: 3, opens: 3, opening: 0, closing: 0 })
  expect(driver.counted).toBe(3)
}) // case 61

test('an open that throws what is no error leaves the acquire its deadline, and the pool its health', async () => {
  for (const thrown of ['a string', 42, undefined, null]) {
    const { pool, driver, clock } = rig({ max: 1 })
    driver.open = () => Promise.reject(thrown)
    const failed = watch(pool.acquire({ timeoutMs: 100 }))
    await clock.advance(100)
    expect(failed.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT' })
    Reflect.deleteProperty(driver, 'open')
    await clock.advance(1_000)
    expect((await pool.acquire({ timeoutMs: 1 })).connection.id).toBe(1)
  }
}) // case 63
