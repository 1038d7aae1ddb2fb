import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { loopStops } from '../../src/frozen-loop.ts'
import type { GenericPoolOptions } from '../../src/options.ts'
import { settled } from '../../src/testing/index.ts'
import type { FakeConnection } from '../../src/testing/index.ts'
import { rig, watch } from './support.ts'
import type { Rig } from './support.ts'

const worker = '/app/node_modules/piscina/dist/worker.js'
const { argv } = process

let warnings: string[]

beforeEach(() => {
  warnings = []
  vi.spyOn(process, 'emitWarning').mockImplementation((text) => void warnings.push(String(text)))
})

afterEach(() => {
  process.argv = argv
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
})

const asWorker = (file: string, ...more: string[]): void => {
  process.argv = [process.execPath, file, ...more]
}

/** A pool in a worker whose event loop stops when a task has ended. */
function frozenRig(options: Partial<GenericPoolOptions<FakeConnection>> = {}): Rig {
  asWorker(worker)
  return rig(options)
}

describe('loopStops()', () => {
  test('loopStops() is so in a worker of Piscina, wherever that is installed', () => {
    expect(loopStops()).toBe(false)
    for (const file of [
      worker,
      '/app/node_modules/.pnpm/piscina@5.3.2/node_modules/piscina/dist/worker.js',
      '/app/node_modules/piscina/dist/src/worker.js',
      'C:\\app\\node_modules\\piscina\\dist\\worker.js',
    ]) {
      asWorker(file)
      expect(loopStops(), file).toBe(true)
    }
    for (const file of ['/app/worker.js', '/app/piscina/dist/other-worker.js', '/app/not-piscina/dist/worker.js']) {
      asWorker(file)
      expect(loopStops(), file).toBe(false)
    }
  })

  test('loopStops() is not where the argument of piscinaOptions or a variable of Piscina’s says so', () => {
    asWorker(worker, '--millpond')
    expect(loopStops()).toBe(false)
    for (const name of ['PISCINA_DISABLE_ATOMICS', 'PISCINA_ENABLE_ASYNC_ATOMICS']) {
      asWorker(worker)
      vi.stubEnv(name, '1')
      expect(loopStops(), name).toBe(false)
      vi.stubEnv(name, '0')
      expect(loopStops(), name).toBe(true)
    }
  })
})

describe('Pool where the event loop stops', () => {
  test('Pool keeps no idle connection, whatever min says', async () => {
    const { pool, driver } = frozenRig({ min: 2, maxIdle: 5 })
    await pool.open()
    expect(driver.counted).toBe(0)
    await pool.use(() => {})
    expect(driver.counted).toBe(0)
    pool.resize({ min: 1, max: 3 })
    await settled()
    expect([driver.counted, pool.stats().min, pool.stats().max]).toEqual([0, 0, 3])
    await pool.close()
  })

  test('release() and destroy() resolve when the connection is closed', async () => {
    const { pool, driver, clock } = frozenRig()
    driver.behaviour.close = () => clock.sleep(200)
    for (const end of ['release', 'destroy'] as const) {
      const lease = await pool.acquire()
      const given = watch(lease[end]())
      await clock.advance(199)
      expect([given.state, driver.counted]).toEqual(['pending', 1])
      await clock.advance(1)
      expect([given.state, driver.counted]).toEqual(['resolved', 0])
    }
    await pool.close()
  })

  test('release() waits for what opens and nobody wants any more', async () => {
    const { pool, driver, clock } = frozenRig({ max: 2 })
    driver.once('open', 'ok', () => clock.sleep(100))
    const [first, second] = [watch(pool.acquire()), watch(pool.acquire())]
    await settled()
    expect([first.state, second.state, pool.stats().opening]).toEqual(['resolved', 'pending', 1])
    // The second one is served by the first connection; what opens for it is for nobody then.
    const given = [watch(first.value!.release())]
    await settled()
    expect(second.state).toBe('resolved')
    given.push(watch(second.value!.release()))
    await clock.advance(99)
    expect(given.map(({ state }) => state)).toEqual(['pending', 'pending'])
    await clock.advance(1)
    expect(given.map(({ state }) => state)).toEqual(['resolved', 'resolved'])
    expect(driver.counted).toBe(0)
    await pool.close()
  })

  test('acquire() that gives up rejects when what opens for it has come and gone', async () => {
    const { pool, driver, clock } = frozenRig()
    const reason = new Error('enough')
    for (const how of ['deadline', 'signal']) {
      const controller = new AbortController()
      driver.once('open', () => clock.sleep(300))
      driver.once('close', () => clock.sleep(100))
      const acquire = watch(pool.acquire({ timeoutMs: 50, signal: controller.signal }))
      await settled()
      if (how === 'signal') controller.abort(reason)
      await clock.advance(399)
      expect([acquire.state, driver.counted]).toEqual(['pending', 1])
      await clock.advance(1)
      expect([acquire.state, driver.counted]).toEqual(['rejected', 0])
      if (how === 'signal') expect(acquire.error).toBe(reason)
      else expect(acquire.error).toMatchObject({ code: 'ERR_ACQUIRE_TIMEOUT', phase: 'connect' })
    }
    await pool.close()
  })

  test('acquire() that gives up waits for a second at the most, and not for what opens for others', async () => {
    const { pool, driver, clock } = frozenRig({ max: 2 })
    driver.behaviour.open = () => clock.sleep(5_000)
    const [first, second] = [watch(pool.acquire({ timeoutMs: 100 })), watch(pool.acquire({ timeoutMs: 6_000 }))]
    await clock.advance(1_099)
    expect(first.state).toBe('pending')
    await clock.advance(1)
    expect([first.state, second.state]).toEqual(['rejected', 'pending'])
    await clock.advance(4_000)
    expect(second.state).toBe('resolved')
    await clock.advanceUntil(second.value!.release())
    await clock.advanceUntil(pool.close())
  })

  test('release() waits no longer for a close that stays in doubt', async () => {
    const { pool, driver, clock } = frozenRig()
    driver.behaviour.close = 'never'
    const lease = await pool.acquire()
    const given = watch(lease.release())
    await clock.advance(5_500)
    expect(given.state).toBe('resolved')
    await clock.advanceUntil(pool.close())
  })

  test('Pool hands a connection from one to the next without closing it', async () => {
    const { pool, driver } = frozenRig({ max: 1 })
    const first = await pool.acquire()
    const second = pool.acquire()
    await first.release()
    expect((await second).connection.id).toBe(1)
    await (await second).release()
    expect([driver.counted, driver.connections.length]).toEqual([0, 1])
    await pool.close()
  })

  test('Pool warns once in a thread', async () => {
    vi.resetModules()
    const { Pool } = await import('../../src/pool.ts')
    const { FakeDriver } = await import('../../src/testing/index.ts')
    asWorker(worker)
    for (let i = 0; i < 2; i++) await new Pool({ driver: new FakeDriver() }).close()
    expect(warnings).toEqual([expect.stringContaining('piscinaOptions')])
  })
})
