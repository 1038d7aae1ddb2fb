import { describe, expect, test } from 'vitest'
import type { Identity, ResetMode } from '../../src/driver.ts'
import { Pool } from '../../src/pool.ts'
import { FakeClock, FakeConnection, FakeDriver, driverContract, settled } from '../../src/testing/index.ts'
import type { DriverClause } from '../../src/testing/index.ts'
import { rig, watch } from './support.ts'

describe('FakeClock', () => {
  test('FakeClock.advance() fires timers in order of their time, and what they set in motion in between', async () => {
    const clock = new FakeClock(0)
    const fired: [string, number][] = []
    const note = (name: string) => () => void fired.push([name, clock.now()])
    clock.setTimer(note('late'), 20)
    clock.setTimer(note('second'), 10)
    clock.setTimer(note('third'), 10)
    clock.setTimer(() => clock.setTimer(note('of a timer'), 2), 5)
    clock.setTimer(note('cancelled'), 1).cancel()
    await clock.advance(15)
    expect(fired).toEqual([
      ['of a timer', 7],
      ['second', 10],
      ['third', 10],
    ])
    expect([clock.now(), clock.timers]).toEqual([15, { all: 1, keepAlive: 1 }])
  })

  test('FakeClock.timers tells those that keep a process alive', () => {
    const clock = new FakeClock()
    clock.setTimer(() => undefined, 1, false)
    clock.setTimer(() => undefined, 1)
    expect(clock.timers).toEqual({ all: 2, keepAlive: 1 })
  })

  test('FakeClock.sleep() lasts as long as it says', async () => {
    const clock = new FakeClock()
    const sleep = watch(clock.sleep(100))
    await clock.advance(99)
    expect(sleep.state).toBe('pending')
    await clock.advance(1)
    expect(sleep.state).toBe('resolved')
  })

  test('FakeClock.advanceUntil() lets as much time pass as the promise needs, and passes its outcome on', async () => {
    const clock = new FakeClock(0)
    expect(await clock.advanceUntil(clock.sleep(250).then(() => 'done'))).toBe('done')
    expect(clock.now()).toBe(250)
    expect(await clock.advanceUntil(Promise.resolve('at once'))).toBe('at once')
    expect(clock.now()).toBe(250)
    const broken = new Error('no')
    await expect(clock.advanceUntil(clock.sleep(50).then(() => Promise.reject(broken)))).rejects.toBe(broken)
    expect(clock.now()).toBe(300)
  })

  test('FakeClock.advanceUntil() gives up at its end, and at once where nothing could ever happen', async () => {
    const clock = new FakeClock(0)
    await expect(clock.advanceUntil(new Promise(() => {}))).rejects.toThrow('has not settled')
    const every = (): void => void clock.setTimer(every, 100)
    every()
    await expect(clock.advanceUntil(new Promise(() => {}), 1_000)).rejects.toThrow('within 1000 ms')
    expect(clock.now()).toBe(1_000)
  })

  test('FakeClock.stall() makes all timers due, as after a blocked event loop', async () => {
    const clock = new FakeClock(0)
    const at: number[] = []
    clock.setTimer(() => at.push(clock.now()), 10)
    clock.setTimer(() => at.push(clock.now()), 20)
    await clock.stall(100)
    expect(at).toEqual([100, 100])
  })
})

describe('FakeDriver', () => {
  test('FakeDriver.calls records what the pool asked of which connection', async () => {
    const { pool, driver, clock } = rig({ max: 2, pingAfterIdleMs: 10 })
    const first = await pool.acquire()
    const second = await pool.acquire()
    first.connection.dirty = true
    await first.release()
    await second.destroy()
    await clock.advance(20)
    await pool.use(() => undefined)
    await pool.close()
    expect(driver.calls).toEqual(['open 1', 'open 2', 'reset 1', 'close 2', 'ping 1', 'close 1'])
  })

  test('FakeDriver.once() is for the next calls, one each', async () => {
    const { pool, driver, clock } = rig()
    driver.once('open', new Error('first'), new Error('second'))
    const lease = await clock.advanceUntil(pool.acquire())
    expect(lease.connection.id).toBe(3)
    expect(driver.counted).toBe(1)
    await lease.release()
  })

  test('FakeDriver.behaviour may take its time on the clock of the pool', async () => {
    const { pool, driver, clock } = rig({ connectTimeoutMs: 500 })
    driver.behaviour.open = () => clock.sleep(300)
    const acquire = watch(pool.acquire())
    await clock.advance(299)
    expect([acquire.state, driver.counted]).toEqual(['pending', 1])
    await clock.advance(1)
    expect(acquire.state).toBe('resolved')
  })

  test("FakeDriver.behaviour 'until aborted' heeds its signal, 'never' does not", async () => {
    for (const [behaviour, endsAt] of [
      ['until aborted', 100],
      ['never', 600],
    ] as const) {
      const causes: unknown[] = []
      const { pool, driver, clock } = rig({
        connectTimeoutMs: 100,
        log: ({ type }) => void (type === 'millpond:connect-error' && causes.push(clock.now())),
      })
      driver.once('open', behaviour)
      const startedAt = clock.now()
      await clock.advanceUntil(pool.acquire())
      expect(causes).toEqual([startedAt + endsAt])
    }
  })

  test('FakeConnection.kill() is heard at once; FakeDriver.killAll() ends all that are open', async () => {
    const { pool, driver } = rig({ max: 3 })
    const leases = [await pool.acquire(), await pool.acquire()]
    await leases[0]?.release()
    driver.behaviour.open = 'never'
    const waiting = [watch(pool.acquire()), watch(pool.acquire())]
    await settled()
    expect(waiting.map(({ state }) => state)).toEqual(['resolved', 'pending'])
    driver.killAll(new Error('restart'))
    expect(driver.connections.map(({ counted }) => counted)).toEqual([false, false, true])
    await leases[1]?.release()
    expect(pool.stats().closes.broken).toBeGreaterThan(0)
  })

  test('FakeConnection.unreachable is found out by the ping alone, and its end is doubtful', async () => {
    const { pool, driver, clock } = rig({ pingAfterIdleMs: 0 })
    await pool.use((connection) => void (connection.unreachable = true))
    const lease = await clock.advanceUntil(pool.acquire())
    expect(lease.connection.id).toBe(2)
    await clock.advance(1_000)
    expect(driver.calls).toEqual(['open 1', 'ping 1', 'close 1', 'open 2', 'reap 1'])
    expect(driver.counted).toBe(1)
    await lease.release()
  })

  test('FakeDriver counts a connection until its close is done, however late', async () => {
    const { pool, driver, clock } = rig()
    driver.behaviour.close = () => clock.sleep(200)
    await (await pool.acquire()).destroy()
    await clock.advance(199)
    expect([driver.counted, pool.stats().closing]).toEqual([1, 1])
    await clock.advance(1)
    expect([driver.counted, pool.stats().closing]).toEqual([0, 0])
  })
})

const clausesOf = (driver: FakeDriver): DriverClause[] =>
  driverContract({
    driver,
    kill: (connection) => connection.kill(),
    count: () => driver.counted,
    touch: (connection) => void (connection.dirty = true),
    timeoutMs: 50,
  })

describe('driverContract()', () => {
  for (const { name, run } of clausesOf(new FakeDriver())) test(`driverContract() is kept by FakeDriver: ${name}`, run)

  /** One fault each, and the clauses that must notice it. */
  const faults: readonly [string, new () => FakeDriver, RegExp][] = [
    [
      'a connection that is dead when it is opened',
      class extends FakeDriver {
        override async open(options: { signal: AbortSignal; tag: string }): Promise<FakeConnection> {
          const connection = await super.open(options)
          connection.broken = true
          return connection
        }
      },
      /ready for use/,
    ],
    [
      'an open that is given up leaves a connection behind',
      class extends FakeDriver {
        override async open(options: { signal: AbortSignal; tag: string }): Promise<FakeConnection> {
          const connection = await super.open(options)
          options.signal.throwIfAborted()
          return connection
        }
      },
      /signal that has aborted/,
    ],
    [
      'a tag of its own',
      class extends FakeDriver {
        override identity(connection: FakeConnection): Identity {
          return { ...super.identity(connection), tag: 'mine' }
        }
      },
      /tells connections apart/,
    ],
    [
      'a close that does not wait for the far side',
      class extends FakeDriver {
        override async close(connection: FakeConnection): Promise<void> {
          setTimeout(() => void super.close(connection), 5)
        }
      },
      /let the connection go/,
    ],
    [
      'a close that rejects where there is nothing to close',
      class extends FakeDriver {
        override async close(connection: FakeConnection): Promise<void> {
          if (!connection.counted) throw new Error('not open')
          await super.close(connection)
        }
      },
      /of a connection that has ended resolves/,
    ],
    [
      'a close that never settles',
      class extends FakeDriver {
        override async close(): Promise<void> {
          await new Promise(() => {})
        }
      },
      /close\(\) resolves when/,
    ],
    [
      'an end that nobody is told of',
      class extends FakeDriver {
        override onClose(): void {}
      },
      /tells of the end once/,
    ],
    [
      'an end that is told twice',
      class extends FakeDriver {
        override onClose(connection: FakeConnection, fn: (cause: unknown) => void): void {
          super.onClose(connection, fn)
          super.onClose(connection, fn)
        }
      },
      /tells of the end once/,
    ],
    [
      'a broken connection that seems to be whole',
      class extends FakeDriver {
        override isBroken(): boolean {
          return false
        }
      },
      /isBroken\(\) and ping\(\)/,
    ],
    [
      'a ping that asks nobody',
      class extends FakeDriver {
        override async ping(): Promise<void> {}
      },
      /isBroken\(\) and ping\(\)/,
    ],
    [
      'a touched session that seems to be clean',
      class extends FakeDriver {
        override needsReset(_: FakeConnection, mode: ResetMode): boolean {
          return mode === 'full'
        }
      },
      /nothing to reset/,
    ],
    [
      'a reset that cleans nothing',
      class extends FakeDriver {
        override async reset(): Promise<void> {}
      },
      /nothing to reset/,
    ],
    [
      'a reset that ends the connection',
      class extends FakeDriver {
        override async reset(connection: FakeConnection): Promise<void> {
          await super.reset(connection)
          connection.kill()
        }
      },
      /nothing to reset/,
    ],
    [
      'a reap that says yes and does nothing',
      class extends FakeDriver {
        override reap = async (): Promise<boolean> => true
      },
      /reap\(\) ends a session/,
    ],
    [
      'a reap that never says yes',
      class extends FakeDriver {
        override reap = async (): Promise<boolean> => false
      },
      /reap\(\) ends a session/,
    ],
  ]

  test.each(faults)('driverContract() notices %s', async (_, Faulty, noticedBy) => {
    const failed: string[] = []
    for (const { name, run } of clausesOf(new Faulty())) await run().catch(() => failed.push(name))
    expect(failed.filter((name) => noticedBy.test(name))).not.toEqual([])
  })

  test('driverContract() notices a driver that opens two for one: the pool over it keeps to no size', async () => {
    class Double extends FakeDriver {
      override async open(options: { signal: AbortSignal; tag: string }): Promise<FakeConnection> {
        await super.open(options)
        return super.open(options)
      }
    }
    const clause = clausesOf(new Double()).find(({ name }) => name.startsWith('a pool'))
    await expect(clause?.run()).rejects.toThrow()
  })

  test('driverContract() asks nothing of a driver that cannot reap', async () => {
    const driver = new FakeDriver()
    delete driver.reap
    const clauses = clausesOf(driver)
    expect(clauses.filter(({ name }) => name.startsWith('reap'))).toEqual([])
    for (const { run } of clauses) await run()
    expect(driver.counted).toBe(0)
  })

  test('driverContract() leaves no connection behind, also where a clause fails', async () => {
    class Deaf extends FakeDriver {
      override onClose(): void {}
    }
    const driver = new Deaf()
    for (const { run } of clausesOf(driver)) await run().catch(() => undefined)
    expect(driver.counted).toBe(0)
  })
})

test('a pool over FakeDriver and FakeClock ends with nothing left', async () => {
  const clock = new FakeClock()
  const driver = new FakeDriver()
  const pool = new Pool({ driver, clock, min: 2 })
  await pool.open()
  await clock.advance(120_000)
  await pool.close()
  expect([driver.counted, clock.timers.all]).toEqual([0, 0])
})
