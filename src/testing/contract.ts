import { deepEqual, equal, ok, rejects } from 'node:assert/strict'
import type { Driver, Identity } from '../driver.ts'
import { Pool } from '../pool.ts'

/** A driver, and how a test gets at the far side of its connections. */
export interface DriverContractOptions<C> {
  readonly driver: Driver<C>
  /** Ends a connection from the far side, as a server does that restarts. */
  readonly kill: (connection: C) => unknown
  /** How many connections the far side counts now, of this driver alone. */
  readonly count: () => number | PromiseLike<number>
  /** Leaves something in the session that a reset has to undo. Without it, only a full reset is tried. */
  readonly touch?: (connection: C) => unknown
  /**
   * How long each step may take, in ms.
   * @default 5_000
   */
  readonly timeoutMs?: number
}

/** One thing that a pool relies on; `run` rejects with an `AssertionError` where the driver does otherwise. */
export interface DriverClause {
  readonly name: string
  readonly run: () => Promise<void>
}

let tags = 0

/**
 * What a pool relies on in a driver, one clause for each, to be run by any test runner. Each clause opens connections
 * of its own and leaves none behind.
 *
 * @example
 * ```ts
 * import { test } from 'node:test'
 * import { FakeDriver, driverContract } from 'millpond/testing'
 *
 * const driver = new FakeDriver() // yours
 * const clauses = driverContract({
 *   driver,
 *   kill: (connection) => connection.kill(),
 *   count: () => driver.counted,
 *   touch: (connection) => void (connection.dirty = true),
 * })
 * for (const { name, run } of clauses) test(name, run)
 * ```
 */
export function driverContract<C>(options: DriverContractOptions<C>): DriverClause[] {
  const { driver, kill, count, touch, timeoutMs = 5_000 } = options
  const signal = (): AbortSignal => AbortSignal.timeout(timeoutMs)
  const step = <T>(what: string, promise: Promise<T>): Promise<T> => inTime(what, promise, timeoutMs)

  const open = async (): Promise<C> => {
    const connection = await step('open()', driver.open({ signal: signal(), tag: `contract-${++tags}` }))
    opened.push(connection)
    return connection
  }
  const close = (connection: C): Promise<void> => step('close()', driver.close(connection, signal()))
  const countToBe = (expected: number): Promise<void> =>
    until(async () => (await count()) === expected, `the far side to count ${expected}`, timeoutMs)

  let opened: C[] = []
  const clause = (name: string, check: () => Promise<void>): DriverClause => ({
    name,
    run: async () => {
      opened = []
      try {
        await check()
      } finally {
        await Promise.allSettled(opened.map((connection) => close(connection)))
      }
    },
  })

  const clauses: DriverClause[] = [
    clause('open() resolves with a connection that is ready for use', async () => {
      const connection = await open()
      equal(driver.isBroken(connection), false, 'isBroken() of a new connection')
      await step('ping()', driver.ping(connection, signal()))
      await countToBe(1)
    }),
    clause('open() with a signal that has aborted leaves nothing open that nobody knows of', async () => {
      const opening = driver.open({ signal: AbortSignal.abort(new Error('aborted')), tag: `contract-${++tags}` })
      // One that ignores the signal opens late, and is closed by the pool.
      await step('open()', opening).then(
        (late) => close(late),
        () => undefined,
      )
      await countToBe(0)
    }),
    clause('identity() tells connections apart, and stays the same', async () => {
      const [one, other] = [await open(), await open()]
      equal(driver.identity(one).tag, `contract-${tags - 1}`, 'the tag is the one that open() was given')
      deepEqual(driver.identity(one), driver.identity(one))
      ok(driver.identity(one).tag !== driver.identity(other).tag)
    }),
    clause('close() resolves when the far side has let the connection go', async () => {
      const connection = await open()
      await close(connection)
      equal(await count(), 0, 'connections that the far side counts after close()')
    }),
    clause('close() of a connection that has ended resolves', async () => {
      const connection = await open()
      await kill(connection)
      // Before it is known to have ended, a driver may well be in doubt.
      await until(() => driver.isBroken(connection), 'isBroken() to be true', timeoutMs)
      await close(connection)
      await close(connection)
      await countToBe(0)
    }),
    clause('onClose() tells of the end once, also those who ask after it', async () => {
      const connection = await open()
      let told = 0
      driver.onClose(connection, () => told++)
      await kill(connection)
      await until(() => told > 0, 'onClose() to tell of the end', timeoutMs)
      let toldLate = 0
      driver.onClose(connection, () => toldLate++)
      equal(toldLate, 1, 'onClose() of a connection that has ended calls back at once')
      await close(connection)
      equal(told, 1, 'calls of one onClose()')
    }),
    clause('isBroken() and ping() know of an end', async () => {
      const connection = await open()
      await kill(connection)
      await until(() => driver.isBroken(connection), 'isBroken() to be true', timeoutMs)
      await rejects(step('ping()', driver.ping(connection, signal())), 'ping() of a connection that has ended')
    }),
    clause('reset() leaves nothing to reset, and a connection that is ready for use', async () => {
      const connection = await open()
      const needsReset = (): boolean | undefined => driver.needsReset?.(connection, 'auto')
      await touch?.(connection)
      if (driver.needsReset && touch) equal(needsReset(), true, 'needsReset() of a connection that was touched')
      await step('reset()', driver.reset(connection, { mode: touch ? 'auto' : 'full', signal: signal() }))
      if (driver.needsReset) equal(needsReset(), false, 'needsReset() after reset()')
      equal(driver.isBroken(connection), false, 'isBroken() after reset()')
      await step('ping()', driver.ping(connection, signal()))
    }),
    clause('a pool over it lends, replaces what ends, keeps to its size and closes', async () => {
      const pool = new Pool<C>({ driver, max: 2, acquireTimeoutMs: timeoutMs })
      try {
        const work = async (): Promise<void> => {
          await pool.use(async (connection) => {
            ok((await count()) <= 2, 'the far side counts more than max')
            await touch?.(connection)
          })
        }
        await Promise.all(Array.from({ length: 8 }, work))
        await pool.use(async (connection) => {
          await kill(connection)
          await until(() => driver.isBroken(connection), 'isBroken() to be true', timeoutMs)
        })
        await Promise.all([work(), work(), work()])
      } finally {
        await step('Pool.close()', pool.close({ timeoutMs }))
      }
      await countToBe(0)
    }),
  ]
  if (!driver.reap) return clauses
  const reap = async (identity: Identity, via: C | undefined): Promise<boolean> =>
    (await driver.reap?.(identity, { via, signal: signal() })) ?? false
  return [
    ...clauses,
    clause('reap() ends a session from outside, and says so when there is none', async () => {
      const [lost, via] = [await open(), await open()]
      const identity = driver.identity(lost)
      equal(await step('reap()', reap(identity, via)), true, 'reap() of a session that lives')
      equal(await count(), 1, 'connections that the far side counts after reap()')
      equal(await step('reap()', reap(identity, via)), true, 'reap() of a session that has ended')
    }),
    clause('reap() without a living connection opens one of its own, or says no', async () => {
      const lost = await open()
      const identity = driver.identity(lost)
      const reaped = await step('reap()', reap(identity, undefined))
      if (reaped) await countToBe(0)
    }),
  ]
}

function inTime<T>(what: string, promise: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what} has not settled within ${ms} ms`)), ms)
    promise.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

async function until(condition: () => boolean | Promise<boolean>, what: string, ms: number): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`Waited ${ms} ms in vain for ${what}`)
    await new Promise((resolve) => {
      setTimeout(resolve, 5)
    })
  }
}
