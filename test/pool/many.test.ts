import { expect, test } from 'vitest'
import { Pool } from '../../src/pool.ts'
import { FakeDriver } from '../../src/testing/index.ts'

test('100,000 waiters queue, half of them abort, the rest are served in order, and nothing is kept of them', async () => {
  const callers = 100_000
  const pool = new Pool({ driver: new FakeDriver(), max: 10, acquireTimeoutMs: Infinity })
  const held = await Promise.all(Array.from({ length: 10 }, () => pool.acquire()))
  const served: number[] = []
  let aborted = 0
  const controllers: AbortController[] = []
  const reason = new Error('half of them leave')
  const signal = (): AbortSignal => {
    const controller = new AbortController()
    controllers.push(controller)
    return controller.signal
  }
  const all = Array.from({ length: callers }, (_, i) =>
    pool.acquire(i % 2 === 0 ? {} : { signal: signal() }).then(
      (lease) => {
        served.push(i)
        return lease.release()
      },
      (error: unknown) => {
        if (error === reason) aborted++
      },
    ),
  )
  expect(pool.stats().waiting).toBe(callers)
  for (const controller of controllers) controller.abort(reason)
  expect(pool.stats()).toMatchObject({ waiting: callers / 2, aborted: callers / 2 })
  for (const lease of held) await lease.release()
  await Promise.all(all)
  expect(aborted).toBe(callers / 2)
  expect(served).toEqual(Array.from({ length: callers / 2 }, (_, i) => 2 * i))
  expect(pool.stats()).toMatchObject({ waiting: 0, leased: 0, idle: 10 })
  await pool.close()
})
