import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { Pool } from '../../src/pool.ts'
import { FakeDriver, settled } from '../../src/testing/index.ts'
import type { FakeConnection } from '../../src/testing/index.ts'

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Bytes that are still in use, once everything that can go has gone. */
async function heapInUse(): Promise<number> {
  await settled()
  collectGarbage()
  return process.memoryUsage().heapUsed
}

/** So many callers queue behind ten leases, every second one leaves, the rest are served. Returns the heap at its fullest. */
async function crowd(pool: Pool<FakeConnection>, callers: number): Promise<number> {
  const held = await Promise.all(Array.from({ length: 10 }, () => pool.acquire()))
  const { aborted: abortedBefore } = pool.stats()
  const served: number[] = []
  let left = 0
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
        if (error === reason) left++
      },
    ),
  )
  expect(pool.stats().waiting).toBe(callers)
  const fullest = await heapInUse()
  for (const controller of controllers) controller.abort(reason)
  expect(pool.stats()).toMatchObject({ waiting: callers / 2, aborted: abortedBefore + callers / 2 })
  for (const lease of held) await lease.release()
  await Promise.all(all)
  expect(left).toBe(callers / 2)
  expect(served).toEqual(Array.from({ length: callers / 2 }, (_, i) => 2 * i))
  expect(pool.stats()).toMatchObject({ waiting: 0, leased: 0, idle: 10 })
  return fullest
}

test('100,000 waiters queue, half of them abort, the rest are served in order, and nothing is kept of them', async () => {
  const pool = new Pool({ driver: new FakeDriver(), max: 10, acquireTimeoutMs: Infinity })
  // What is compiled, and grows once, is no leak.
  await crowd(pool, 1_000)
  const before = await heapInUse()
  const needed = (await crowd(pool, 100_000)) - before
  const kept = (await heapInUse()) - before
  // They were there to be seen, some hundred bytes each; a tenth is much more than what a collection may miss.
  expect(needed).toBeGreaterThan(100_000 * 200)
  expect(kept).toBeLessThan(needed / 10)
  await pool.close()
})
