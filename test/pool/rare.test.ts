// What happens seldom, and went wrong once.
import { expect, onTestFinished, test, vi } from 'vitest'
import { settled } from '../../src/testing/index.ts'
import { rig, watch } from './support.ts'
import { after, lease } from './cases/support.ts'

test('an acquire that is aborted while onAcquire looks leaves the connection to the next in line', async () => {
  const { pool, clock } = rig({ max: 1, onAcquire: () => after(clock, 100) })
  const controller = new AbortController()
  const first = watch(pool.acquire({ signal: controller.signal }))
  const second = watch(pool.acquire())
  await clock.advance(50)
  controller.abort()
  await clock.advance(50)
  expect([first.state, second.state, pool.stats().opens]).toEqual(['rejected', 'pending', 1])
  await clock.advance(100)
  expect(second.value?.connection.id).toBe(1)
}) // case 40

test('a cause that cannot be made a string leaves the acquire its deadline', async () => {
  const { pool, driver, clock } = rig({ max: 1 })
  driver.open = () => Promise.reject(Object.create(null))
  const failed = watch(pool.acquire({ timeoutMs: 100 }))
  await clock.advance(100)
  expect(failed.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT' })
}) // case 63

test('more than ten connections that open or close at once cause no warning of the process', async () => {
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  onTestFinished(() => warned.mockRestore())
  const { pool } = rig({ max: 30 })
  for (const one of await lease(pool, 30)) await one.release()
  await pool.close()
  await settled()
  expect(warned).not.toHaveBeenCalled()
})

test('a connection that was used to reap and cannot be kept does not set off a loop of reaping', async () => {
  const { pool, driver, clock } = rig({ max: 3, onRelease: () => Promise.reject(new Error('never good enough')) })
  const [first] = await lease(pool, 2)
  driver.behaviour.close = new Error('reset by peer')
  // So that the test ends, too.
  driver.behaviour.open = ({ id }) => {
    if (id > 100) throw new Error('that is enough')
  }
  await first?.destroy()
  await clock.advance(10)
  expect(driver.connections.length).toBeLessThan(10)
})

test('pingAfterIdleMs 0 pings always, also what was released in the same millisecond', async () => {
  const { pool, driver } = rig({ max: 1, pingAfterIdleMs: 0 })
  await pool.use(() => {})
  await pool.use(() => {})
  expect(driver.connections[0]?.pings).toBe(1)
})
