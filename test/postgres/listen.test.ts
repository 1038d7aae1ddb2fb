import { execFile } from 'node:child_process'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, expectTypeOf, onTestFinished, test, vi } from 'vitest'
import { createBroker } from '../../src/index.ts'
import { createPool } from '../../src/postgres/index.ts'
import type { ListenGap, PostgresListener, PostgresPool, PostgresPoolOptions } from '../../src/postgres/index.ts'
import { FakeClock } from '../../src/testing/index.ts'
import type { PoolEvent } from '../../src/watch.ts'
import { rejection, tcpServer } from '../support/connection.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { makePool } from '../support/pool.ts'

let db: TestDatabase
beforeAll(async () => {
  db = await createDatabase()
})
afterAll(() => db.drop())

const make = (options?: PostgresPoolOptions): PostgresPool => makePool(db, { max: 3, ...options })

const listeningPids = async (): Promise<number[]> =>
  (await db.sessions()).filter(({ query }) => /^listen /i.test(query)).map(({ pid }) => pid)

async function killListener(): Promise<void> {
  const [pid] = await listeningPids()
  if (pid === undefined) throw new Error('nobody listens')
  await db.admin`select pg_terminate_backend(${pid})`
}

const events = (): { seen: PoolEvent[]; log: (event: PoolEvent) => void } => {
  const seen: PoolEvent[] = []
  return { seen, log: (event) => void seen.push(event) }
}

describe('PostgresPool.listen()', () => {
  test('PostgresPool.listen() hears what any pool of the database sends, in order', async () => {
    const pool = make()
    const heard: string[] = []
    const listener = await pool.listen('orders', (payload, channel) => heard.push(`${channel}:${payload}`))
    expect(listener.channel).toBe('orders')
    const other = make()
    for (const id of ['1', '2']) await other.sql.notify('orders', id)
    await pool.sql`notify orders, '3'`
    await other.sql.notify('others', 'x')
    await other.sql.notify('orders', '')
    await until(() => heard.length === 4)
    expect(heard).toEqual(['orders:1', 'orders:2', 'orders:3', 'orders:'])
  })

  test('PostgresPool.listen() takes a name as it is, as sql.notify() and postgres.js do', async () => {
    const pool = make()
    const heard: string[] = []
    const names = ['Orders', 'orders', 'with "quotes"', 'a.b c; --', 'ärger', 'x'.repeat(63)]
    for (const name of names) await pool.listen(name, (payload, channel) => heard.push(`${channel}=${payload}`))
    for (const [i, name] of names.entries()) await pool.sql.notify(name, String(i))
    await until(() => heard.length === names.length)
    expect(heard).toEqual(names.map((name, i) => `${name}=${i}`))
  })

  test('PostgresPool.listen() has one connection for all, which counts as leased and to min', async () => {
    const pool = make({ min: 1 })
    await pool.open()
    await pool.listen('a', () => undefined)
    await Promise.all([pool.listen('b', () => undefined), pool.listen('a', () => undefined)])
    expect(pool.stats()).toMatchObject({ leased: 1, min: 2, max: 3 })
    await until(() => pool.stats().idle === 1)
    await db.sessionsToBe(2)
    pool.resize({ min: 0 })
    expect(pool.stats().min).toBe(1)
    pool.resize({ max: 1 })
    expect(pool.stats()).toMatchObject({ min: 1, max: 1 })
    expect(() => pool.resize({ min: 3 })).toThrow(RangeError)
  })

  test('PostgresListener.unlisten() ends that one alone; the last one gives the connection back, clean', async () => {
    const pool = make({ max: 1 })
    const heard: string[] = []
    const first = await pool.listen('a', () => heard.push('first'))
    const second = await pool.listen('a', () => heard.push('second'))
    const third = await pool.listen('b', () => heard.push('third'))
    const other = make()
    await first.unlisten()
    await first.unlisten()
    await other.sql.notify('a', '')
    await until(() => heard.length === 1)
    await second.unlisten()
    await other.sql.notify('a', '')
    await other.sql.notify('b', '')
    await until(() => heard.length === 2)
    expect(heard).toEqual(['second', 'third'])
    await third[Symbol.asyncDispose]()
    await until(() => pool.stats().idle === 1)
    expect(pool.stats()).toMatchObject({ leased: 0, min: 0, opens: 1 })
    const [row] = await pool.sql`select count(*)::int as n from pg_listening_channels()`
    expect(row).toEqual({ n: 0 })
    // And again on it.
    await pool.listen('c', () => heard.push('again'))
    await other.sql.notify('c', '')
    await until(() => heard.length === 3)
    expect(pool.stats().opens).toBe(1)
  })

  test('PostgresListener may be ended by a function that it calls', async () => {
    const pool = make()
    let heard = 0
    const listener: PostgresListener = await pool.listen('once', async () => {
      heard++
      await listener.unlisten()
    })
    await pool.sql.notify('once', '1')
    await until(() => pool.stats().min === 0)
    await pool.sql.notify('once', '2')
    expect(heard).toBe(1)
  })

  test('PostgresPool.listen() survives any mixture of joining and leaving', async () => {
    const pool = make()
    const seed = Date.now() % 100_000
    console.log(`seed ${seed}`)
    let random = seed
    const below = (n: number): number => (random = (random * 1103515245 + 12345) % 2 ** 31) % n
    const alive = new Map<PostgresListener, string[]>()
    for (let i = 0; i < 60; i++) {
      const leaver = [...alive.keys()][below(4)]
      const leaving = leaver?.unlisten()
      if (leaver) alive.delete(leaver)
      const heard: string[] = []
      const joining = pool.listen(`c${below(3)}`, (payload) => heard.push(payload))
      if (below(2) === 0) await leaving
      alive.set(await joining, heard)
    }
    for (const channel of ['c0', 'c1', 'c2']) await pool.sql.notify(channel, channel)
    await until(() => [...alive.values()].every((heard) => heard.length > 0))
    for (const [listener, heard] of alive) expect(heard).toEqual([listener.channel])
    await Promise.all([...alive.keys()].map((listener) => listener.unlisten()))
    await until(() => pool.stats().leased === 0)
    expect(pool.stats().min).toBe(0)
  })

  test('PostgresPool.listen() is no leak, however long it lasts', async () => {
    const clock = new FakeClock()
    const { seen, log } = events()
    const pool = make({ clock, log, leakAfterMs: 1_000 })
    const leaks = (): unknown[] => seen.filter(({ type }) => type === 'millpond:leak')
    await pool.listen('long', () => undefined)
    await clock.advance(5_000)
    expect(leaks()).toEqual([])
    const lease = await pool.acquire()
    await clock.advance(5_000)
    expect(leaks()).toHaveLength(1)
    expect(pool.stats().leaks).toBe(1)
    await lease.release()
  })

  test('PostgresPool.listen() refuses what cannot be', async () => {
    const pool = make()
    const wrong: [unknown, unknown, object][] = [
      ['', () => undefined, {}],
      [7, () => undefined, {}],
      ['a\0b', () => undefined, {}],
      ['ä'.repeat(32), () => undefined, {}],
      ['a', 'fn', {}],
      ['a', () => undefined, { keepAlive: 1 }],
      ['a', () => undefined, { onGap: 1 }],
      ['a', () => undefined, { signal: 1 }],
      ['a', () => undefined, { timeoutMs: 1 }],
    ]
    for (const [channel, fn, options] of wrong) {
      expect((await rejection(pool.listen(channel as string, fn as () => void, options))).code).toBe('ERR_OPTION')
    }
    expect(pool.stats().acquires).toBe(0)
  })

  test('PostgresPool.listen() rejects as an acquire does, and leaves nothing behind', async () => {
    const closed = createPool(db.url.replace(String(db.server.port), '1'), { acquireTimeoutMs: 100 })
    expect((await rejection(closed.listen('a', () => undefined))).code).toBe('ERR_ACQUIRE_TIMEOUT')
    expect(closed.stats().min).toBe(0)
    await closed.close()
    expect((await rejection(closed.listen('a', () => undefined))).code).toBe('ERR_POOL_CLOSED')
    const wrong = make({ password: 'wrong' })
    expect((await rejection(wrong.listen('a', () => undefined))).code).toBe('ERR_CONNECT')
  })

  test('PostgresPool.listen() heeds its signal: before, while it waits, and afterwards', async () => {
    const pool = make({ max: 1 })
    const reason = new Error('enough')
    const aborted = pool.listen('a', () => undefined, { signal: AbortSignal.abort(reason) })
    expect(await rejection(aborted)).toBe(reason)
    const lease = await pool.acquire()
    const waiting = new AbortController()
    const failed = rejection(pool.listen('a', () => undefined, { signal: waiting.signal }))
    await until(() => pool.stats().waiting === 1)
    waiting.abort(reason)
    expect(await failed).toBe(reason)
    await until(() => pool.stats().waiting === 0)
    await lease.release()
    const later = new AbortController()
    const heard: string[] = []
    await pool.listen('a', (payload) => heard.push(payload), { signal: later.signal })
    later.abort()
    await until(() => pool.stats().leased === 0)
    await pool.sql.notify('a', 'too late')
    expect(heard).toEqual([])
  })

  test('PostgresPool.listen() has the types of its functions', async () => {
    const pool = make()
    type Listen = PostgresPool['listen']
    expectTypeOf<Listen>().returns.toEqualTypeOf<Promise<PostgresListener>>()
    expectTypeOf<Listen>().parameter(1).parameters.toEqualTypeOf<[payload: string, channel: string]>()
    expectTypeOf<PostgresListener>().toExtend<AsyncDisposable>()
    // @ts-expect-error -- no such option
    await rejection(pool.listen('a', () => undefined, { timeoutMs: 1 }))
  })
})

describe('PostgresPool.listen() under a limit', () => {
  test('PostgresPool.listen() is refused where the sum of min would pass the limit, and the pool lives on', async () => {
    const broker = createBroker({ name: 'listen-limit', limit: 3 })
    onTestFinished(() => broker.close())
    const one = make({ broker: 'listen-limit', min: 1 })
    const two = make({ broker: 'listen-limit', min: 1 })
    await Promise.all([one.open(), two.open()])
    await one.listen('a', () => undefined)
    expect((await rejection(two.listen('a', () => undefined))).code).toBe('ERR_BROKER_MISMATCH')
    expect(two.stats()).toMatchObject({ min: 1, leased: 0 })
    expect([...(await two.sql`select 1 as one`)]).toEqual([{ one: 1 }])
    expect((await db.sessions()).length).toBeLessThanOrEqual(3)
  })
})

describe('PostgresPool.listen() when its connection is lost', () => {
  test('PostgresPool.listen() listens again on another connection, and tells the gap', async () => {
    const { seen, log } = events()
    const pool = make({ log })
    const heard: string[] = []
    const gaps: ListenGap[] = []
    await pool.listen('a', (payload) => heard.push(payload), { onGap: (gap) => gaps.push(gap) })
    await pool.listen('b', (payload) => heard.push(payload))
    await killListener()
    await until(() => gaps.length === 1)
    expect(gaps[0]).toMatchObject({ channel: 'a', cause: { code: '57P01' } })
    expect(gaps[0]?.gapMs).toBeGreaterThan(0)
    await pool.sql.notify('a', '1')
    await pool.sql.notify('b', '2')
    await until(() => heard.length === 2)
    expect(pool.stats()).toMatchObject({ leased: 1, min: 1 })
    const told = seen.filter(({ type }) => type.startsWith('millpond:listen'))
    expect(told.map(({ type }) => type)).toEqual(['millpond:listen', 'millpond:listen-lost', 'millpond:listen'])
    expect(told[2]).toMatchObject({ channels: 2, gapMs: gaps[0]?.gapMs })
  })

  test('PostgresPool.listen() goes on trying while the server cannot be reached, with pauses', async () => {
    let reachable = true
    let refused = 0
    const sockets = new Set<Socket>()
    await using proxy = await tcpServer((socket) => {
      if (!reachable) {
        refused++
        return socket.destroy()
      }
      sockets.add(socket)
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.pipe(upstream)
      socket.on('close', () => upstream.destroy())
      return undefined
    })
    const pool = make({ port: proxy.port, acquireTimeoutMs: 500 })
    const heard: string[] = []
    let gaps = 0
    await pool.listen('a', (payload) => heard.push(payload), { onGap: () => void gaps++ })
    reachable = false
    for (const socket of sockets) socket.resetAndDestroy()
    await until(() => refused >= 3)
    // One who joins meanwhile hears that it cannot be done; the other one stays.
    expect((await rejection(pool.listen('b', () => undefined))).code).toBe('ERR_ACQUIRE_TIMEOUT')
    expect(gaps).toBe(0)
    expect(refused).toBeLessThan(30)
    reachable = true
    await until(() => gaps === 1)
    await pool.sql.notify('a', 'x')
    await until(() => heard.length === 1)
  })

  test('PostgresListener.unlisten() works while there is no connection', async () => {
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      upstream.pipe(socket)
      socket.pipe(upstream)
      socket.on('close', () => upstream.destroy())
    })
    const pool = make({ port: proxy.port })
    const listener = await pool.listen('a', () => undefined)
    proxy.server.close()
    await killListener()
    await until(() => pool.stats().opening + pool.stats().waiting > 0)
    await listener.unlisten()
    await until(() => pool.stats().min === 0 && pool.stats().waiting === 0)
  })

  test('PostgresPool.evict() moves listeners to a new connection', async () => {
    const pool = make()
    const heard: string[] = []
    let gaps = 0
    await pool.listen('a', (payload) => heard.push(payload), { onGap: () => void gaps++ })
    const [before] = await listeningPids()
    pool.evict()
    await until(() => gaps === 1)
    await until(async () => (await listeningPids()).every((pid) => pid !== before))
    await pool.sql.notify('a', 'x')
    await until(() => heard.length === 1)
  })

  test('PostgresPool.listen() asks a silent connection for a sign of life, and leaves it without one', async () => {
    let deaf = false
    await using proxy = await tcpServer((socket) => {
      const upstream = connect(db.server.port, db.server.host)
      upstream.on('error', () => undefined)
      let swallows = false
      upstream.on('data', (chunk) => void (swallows || socket.write(chunk)))
      upstream.on('end', () => void (swallows || socket.end()))
      socket.on('data', (chunk) => {
        swallows ||= deaf
        if (!swallows) upstream.write(chunk)
      })
      socket.on('close', () => upstream.destroy())
    })
    // Time that a test moves: the real one, and leaps.
    let leapt = 0
    const timers: { fn: () => void; dueAt: number; done: boolean }[] = []
    const now = (): number => performance.now() + leapt
    const clock: NonNullable<PostgresPoolOptions['clock']> = {
      now,
      setTimer(fn, ms, keepAlive) {
        const timer = { fn, dueAt: now() + ms, done: false }
        timers.push(timer)
        const real = setTimeout(() => {
          if (timer.done) return
          timer.done = true
          fn()
        }, ms)
        if (keepAlive === false) real.unref()
        return {
          cancel() {
            timer.done = true
            clearTimeout(real)
          },
        }
      },
    }
    const leap = (ms: number): void => {
      leapt += ms
      for (const timer of timers) {
        if (timer.done || timer.dueAt > now()) continue
        timer.done = true
        timer.fn()
      }
    }
    const pool = make({ port: proxy.port, clock })
    const gaps: ListenGap[] = []
    await pool.listen('a', () => undefined, { onGap: (gap) => gaps.push(gap) })
    leap(31_000)
    await sleep(20)
    expect(pool.stats()).toMatchObject({ leased: 1, opens: 1 })
    deaf = true
    leap(31_000)
    await until(() => timers.some(({ done, dueAt }) => !done && dueAt - now() > 4_000 && dueAt - now() < 5_100))
    deaf = false
    leap(5_010)
    await until(() => gaps.length === 1)
    expect(gaps[0]?.cause).toMatchObject({ code: 'ERR_CONNECTION_LOST' })
    // The close of the one that is deaf for good.
    leap(5_010)
    await until(() => pool.stats().closing === 0)
  })
})

describe('PostgresPool.listen() and the rest of the pool', () => {
  test('a listener that throws or rejects is reported, and harms nobody', async () => {
    const { seen, log } = events()
    const pool = make({ log })
    const heard: string[] = []
    await pool.listen('a', () => {
      throw new Error('thrown')
    })
    await pool.listen('a', () => Promise.reject(new Error('rejected')))
    await pool.listen('a', (payload) => heard.push(payload))
    for (const payload of ['1', '2']) await pool.sql.notify('a', payload)
    await until(() => heard.length === 2)
    const told = (): PoolEvent[] => seen.filter(({ type }) => type === 'millpond:listener-error')
    await until(() => told().length === 4)
    expect(told()[0]).toMatchObject({ pool: pool.name, channel: 'a', cause: { message: 'thrown' } })
  })

  test('a listener that throws becomes a warning where nobody hears events', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    onTestFinished(() => warned.mockRestore())
    const pool = make({ name: 'quiet' })
    await pool.listen('a', () => {
      throw new Error('thrown')
    })
    await pool.sql.notify('a', '')
    await until(() => warned.mock.calls.length === 1)
    expect(warned.mock.calls[0]?.[0]).toBe('A listener of "quiet" on the channel "a" threw: thrown')
  })

  test('a listener runs outside of the transaction in which it was made', async () => {
    const pool = make()
    await pool.sql`create table heard (a text)`
    let wrote: Promise<unknown> | undefined
    const stop = pool.transaction(async (sql) => {
      await pool.listen('tx', (payload) => {
        wrote = pool.sql`insert into heard values (${payload})`.execute()
      })
      const other = make()
      await other.sql.notify('tx', 'x')
      await until(() => wrote !== undefined)
      await wrote
      await sql`select 1/0`
    })
    expect((await rejection(stop)).code).toBe('22012')
    // Outside of it, or it would have been rolled back.
    expect([...(await pool.sql`select a from heard`)]).toEqual([{ a: 'x' }])
  })

  test('PostgresPool.close() ends listeners, those that wait too, within no time', async () => {
    const pool = make({ max: 1 })
    const heard: string[] = []
    const listener = await pool.listen('a', (payload) => heard.push(payload))
    const startedAt = performance.now()
    expect(await pool.close()).toEqual({ revoked: 0 })
    expect(performance.now() - startedAt).toBeLessThan(2_000)
    expect(pool.stats().closes.closed).toBe(1)
    await db.sessionsToBe(0)
    await listener.unlisten()

    const other = make({ max: 1 })
    const lease = await other.acquire()
    const waiting = rejection(other.listen('a', () => undefined))
    await until(() => other.stats().waiting === 1)
    const closing = other.close()
    expect((await waiting).code).toBe('ERR_POOL_CLOSED')
    await lease.release()
    await closing
  })

  test('a listener keeps no process alive, unless it is to', async () => {
    const script = `
      import { createPool } from 'millpond/postgres'
      const pool = createPool(process.env.URL)
      await pool.listen('alive', () => undefined, { keepAlive: process.env.KEEP === 'true' })
      console.log('listens')
      setTimeout(() => { console.log('still here'); process.exit(0) }, 1000).unref()`
    const run = (keepAlive: boolean): Promise<{ stdout: string }> =>
      promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
        cwd: fileURLToPath(new URL('../..', import.meta.url)),
        env: { ...process.env, URL: db.url, KEEP: String(keepAlive) },
        timeout: 20_000,
      })
    expect((await run(false)).stdout).toBe('listens\n')
    expect((await run(true)).stdout).toBe('listens\nstill here\n')
  })
})
