import { setEnvironmentData } from 'node:worker_threads'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { createBroker } from '../../src/broker/broker.ts'
import type { Broker } from '../../src/broker/broker.ts'
import { limitPermits } from '../../src/broker/limit.ts'
import { joinBroker } from '../../src/broker/member.ts'
import type { Member } from '../../src/broker/member.ts'
import { FakeClock } from '../../src/testing/clock.ts'
import { TestPool } from './support/pools.ts'

// Several members in one thread: the broker's own.

let names = 0
const opened: { broker: Broker; pools: TestPool[] }[] = []

function setUp(limit: number, pools: readonly { min?: number; max?: number }[]) {
  const name = `member-${++names}`
  const broker = createBroker({ name, limit })
  const clock = new FakeClock()
  const made = pools.map((options) => {
    const pool = new TestPool(joinBroker({ name, clock }), () => clock.now(), options)
    pool.permits.enrol(pool)
    return pool
  })
  opened.push({ broker, pools: made })
  return { broker, clock, pools: made as [TestPool, TestPool, TestPool] }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => void setImmediate(resolve))
}

/** Until all wakes have been heard. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => void setImmediate(resolve))
}

afterEach(() => {
  for (const { pools } of opened.splice(0)) for (const pool of pools) pool.permits.leave()
})

describe('Member', () => {
  test('opens as far as the limit goes, with tags of their own', () => {
    const { broker, pools } = setUp(3, [{}, {}])
    const [a, b] = pools
    for (let i = 0; i < 2; i++) {
      a.acquire()
      b.acquire()
    }
    expect(a.openings.length + b.openings.length).toBe(3)
    const tags = [...a.openings, ...b.openings].map(({ tag }) => tag)
    expect(new Set(tags).size).toBe(3)
    expect(broker.stats()).toMatchObject({ limit: 3, held: 3, free: 0 })
    expect(broker.stats().members.map(({ wants }) => wants)).toEqual([0, 1])
  })

  test('a release that concerns nobody else is one load, and at most one store beside it', () => {
    const { pools } = setUp(2, [{}, {}])
    const [a] = pools
    a.acquire()
    a.openDone()
    const load = vi.spyOn(Atomics, 'load')
    const store = vi.spyOn(Atomics, 'store')
    a.release()
    a.acquire()
    a.release()
    a.acquire()
    a.release()
    expect(load).toHaveBeenCalledTimes(3)
    expect(store).toHaveBeenCalledTimes(1)
    expect(a.permits.unsettled).toBe(false)
    vi.restoreAllMocks()
  })

  test('calls an idle connection away once it is ripe, and ticks until then', async () => {
    const { broker, clock, pools } = setUp(1, [{}, {}])
    const [a, b] = pools
    a.acquire()
    a.openDone()
    a.release()
    b.acquire()
    await quiet()
    expect(a.closings).toHaveLength(0)
    expect(clock.timers.keepAlive).toBe(1)
    await clock.advance(broker.stats().moveMs * 2)
    await until(() => a.closings.length === 1)
    a.closeDone()
    await until(() => b.openings.length === 1)
    b.openDone()
    expect(broker.stats()).toMatchObject({ moves: 1, held: 1 })
    expect(broker.stats().members).toMatchObject([{ given: 1 }, { received: 1 }])
    expect(clock.timers.all).toBe(0)
  })

  test('yields a connection that has been open for long to who waits without any', async () => {
    const { clock, pools } = setUp(1, [{}, {}])
    const [a, b] = pools
    a.acquire()
    a.openDone()
    b.acquire()
    a.acquire()
    a.release()
    expect(a.leased).toHaveLength(1)
    await clock.advance(1_000)
    a.release()
    expect(a.closings).toHaveLength(1)
    a.closeDone()
    await until(() => b.openings.length === 1)
  })

  test('keeps the permit of a connection that ended by itself for its own waiter, under a new tag', () => {
    const { pools } = setUp(1, [{}, {}])
    const [a] = pools
    a.acquire()
    const first = a.openings[0]!.tag
    a.openFailed()
    expect(a.openings).toHaveLength(1)
    expect(a.openings[0]!.tag).not.toBe(first)
  })

  test('passes a grant on that nobody here waits for any more', async () => {
    const { broker, pools } = setUp(1, [{}, {}])
    const [a, b] = pools
    a.acquire()
    a.openDone()
    b.acquire()
    a.destroy()
    a.closeDone()
    b.abort()
    await quiet()
    expect(b.openings).toHaveLength(0)
    expect(broker.stats()).toMatchObject({ free: 1, granted: 0 })
  })

  test('gives min its connections, and takes none of them away', async () => {
    const { clock, pools } = setUp(2, [{ min: 2 }, {}])
    const [a, b] = pools
    a.permits.settle()
    expect(a.openings).toHaveLength(2)
    a.openDone()
    a.openDone()
    b.acquire()
    await clock.advance(10_000)
    await quiet()
    expect(a.closings).toHaveLength(0)
    expect(b.openings).toHaveLength(0)
  })

  test('leaves what is in doubt to others, who try again later if they cannot find out', async () => {
    const { broker, clock, pools } = setUp(2, [{}, {}])
    const [a, b] = pools
    b.acquire()
    b.openDone()
    b.release()
    a.acquire()
    a.openDone(4711)
    const { tag } = a.leased[0]!
    a.destroy()
    b.reapAnswer = () => Promise.reject(new Error('not now'))
    a.permits.leave()
    await until(() => b.reaped.length === 1)
    expect(b.reaped[0]).toEqual({ pid: 4711, secret: 7, tag })
    await quiet()
    expect(broker.stats()).toMatchObject({ limbo: 1, free: 0, held: 1 })
    // Nobody waits: what is left to do keeps no process alive.
    expect(clock.timers).toEqual({ all: 1, keepAlive: 0 })
    await clock.advance(99)
    expect(b.reaped).toHaveLength(1)
    b.reapAnswer = () => Promise.resolve(true)
    await clock.advance(1)
    await until(() => broker.stats().free === 1)
    expect(b.reaped).toHaveLength(2)
    expect(clock.timers.all).toBe(0)
  })

  test('gives what it reaped to its own waiter', async () => {
    const { clock, pools } = setUp(1, [{}, {}])
    const [a, b] = pools
    a.acquire()
    a.openDone()
    b.acquire()
    a.destroy()
    a.permits.leave()
    await quiet()
    await clock.advance(200)
    await until(() => b.openings.length === 1)
  })

  test('reaps one at a time while it has nothing to reap through', async () => {
    const { clock, pools } = setUp(3, [{}, {}])
    const [dying, bare] = pools
    for (let i = 0; i < 3; i++) {
      dying.acquire()
      dying.openDone()
    }
    const answers: ((ended: boolean) => void)[] = []
    bare.reapAnswer = () => new Promise((resolve) => void answers.push(resolve))
    dying.permits.leave()
    await quiet()
    await clock.advance(200)
    await until(() => bare.reaped.length === 1)
    expect(clock.timers.all).toBe(0)
    await clock.advance(1_000)
    await quiet()
    expect(bare.reaped).toHaveLength(1)
    answers[0]?.(true)
    await until(() => bare.reaped.length === 2)
  })

  test('leaves the reaping to one that has an idle connection, for a while', async () => {
    const { clock, pools } = setUp(4, [{}, {}, {}, {}])
    const [dying, bare, busy, idle] = pools as unknown as [TestPool, TestPool, TestPool, TestPool]
    for (const pool of [busy, idle]) {
      pool.acquire()
      pool.openDone()
    }
    idle.release()
    dying.acquire()
    dying.openDone()
    dying.destroy()
    dying.permits.leave()
    await until(() => idle.reaped.length === 1)
    await clock.advance(1_000)
    await quiet()
    expect([bare.reaped, busy.reaped]).toEqual([[], []])
  })

  test('with no idle connection anywhere one that has a leased one does it', async () => {
    const { pools } = setUp(3, [{}, {}, {}])
    const [dying, busy, busyToo] = pools
    for (const pool of [busy, busyToo]) {
      pool.acquire()
      pool.openDone()
    }
    dying.acquire()
    dying.openDone()
    dying.destroy()
    dying.permits.leave()
    await until(() => busy.reaped.length + busyToo.reaped.length === 1)
  })

  test('reaps at once where nobody has a connection, nor is about to', async () => {
    const { pools } = setUp(3, [{}, {}, {}])
    const [dying, opening, bare] = pools
    dying.acquire()
    dying.openDone()
    const { tag } = dying.leased[0]!
    opening.acquire()
    dying.permits.leave()
    await quiet()
    expect(bare.reaped).toHaveLength(0)
    opening.permits.leave()
    await until(() => bare.reaped.length > 0)
    expect(bare.reaped[0]).toMatchObject({ tag })
  })

  test('tries again at once what it could not do for want of a connection', async () => {
    const { pools } = setUp(3, [{}, {}])
    const [dying, other] = pools
    dying.acquire()
    dying.openDone()
    other.reapAnswer = () => Promise.resolve(false)
    dying.permits.leave()
    await until(() => other.reaped.length === 1)
    await quiet()
    other.acquire()
    expect(other.reaped).toHaveLength(1)
    other.openDone()
    await until(() => other.reaped.length === 2)
    await quiet()
    // That failed for another reason, so another connection does not help.
    other.acquire()
    other.openDone()
    await quiet()
    expect(other.reaped).toHaveLength(2)
  })

  test('one at a time reaps beside the limit; who dies over it is not waited for for ever', async () => {
    const { clock, pools } = setUp(3, [{}, {}])
    const [a, b] = pools
    expect(a.permits.beginBareReaping?.(1_000)).toBe(true)
    expect(b.permits.beginBareReaping?.(1_000)).toBe(false)
    b.permits.endBareReaping?.()
    expect(b.permits.beginBareReaping?.(1_000)).toBe(false)
    a.permits.endBareReaping?.()
    expect(b.permits.beginBareReaping?.(1_000)).toBe(true)
    await clock.advance(1_001)
    expect(a.permits.beginBareReaping?.(1_000)).toBe(true)
    b.permits.endBareReaping?.()
    expect(b.permits.beginBareReaping?.(1_000)).toBe(false)
  })

  test('reaps nothing while it leaves', async () => {
    const { broker, pools } = setUp(1, [{}, {}])
    const [a, b] = pools
    await quiet()
    a.acquire()
    a.openDone()
    a.destroy()
    a.permits.leave()
    b.permits.leave()
    await quiet()
    expect(b.reaped).toHaveLength(0)
    expect(broker.stats()).toMatchObject({ limbo: 1, members: [] })
  })

  test('keeps another min when it is resized, if there is room for it', () => {
    const { broker, pools } = setUp(3, [{ min: 1 }, { min: 1 }])
    const member = pools[0].permits
    member.resized?.(2)
    expect(broker.stats().members.map(({ min }) => min)).toEqual([2, 1])
    expect(() => member.resized?.(3)).toThrow(
      expect.objectContaining({ code: 'ERR_BROKER_MISMATCH', message: expect.stringContaining('add up to 4') }),
    )
    expect(broker.stats().members.map(({ min }) => min)).toEqual([2, 1])
  })

  test('does not join what another version made', () => {
    setEnvironmentData('millpond:of another version', new SharedArrayBuffer(4096))
    const member = joinBroker({ name: 'of another version' })
    expect(() => member.enrol(new TestPool(member, () => 0))).toThrow(
      expect.objectContaining({ code: 'ERR_BROKER_MISMATCH' }),
    )
  })

  test('has no timer while nobody lacks a connection', async () => {
    const { clock, pools } = setUp(2, [{ max: 1 }, {}])
    const [a] = pools
    a.acquire()
    a.acquire()
    expect(clock.timers.all).toBe(0)
    a.openDone()
    expect(a.waiting).toBe(1)
    expect(clock.timers.all).toBe(0)
  })

  test('is refused once the broker is closed; what it has goes back', async () => {
    const { broker, pools } = setUp(2, [{}, {}])
    const [a, b] = pools
    a.acquire()
    a.acquire()
    a.openDone()
    a.openDone()
    a.release()
    b.acquire()
    const closed = broker.close()
    await until(() => a.refusal !== undefined && b.refusal !== undefined)
    expect(a.refusal).toMatchObject({ code: 'ERR_BROKER_CLOSED' })
    expect(a.closings).toHaveLength(1)
    a.closeDone()
    a.release()
    expect(broker.stats()).toMatchObject({ free: 1, held: 1 })
    a.retireIdle()
    a.closeDone()
    await closed
    expect(() => joinBroker({ name: broker.name }).enrol(b)).toThrow(
      expect.objectContaining({ code: 'ERR_BROKER_CLOSED' }),
    )
  })

  test('measures what a move costs', async () => {
    const { broker, clock, pools } = setUp(1, [{}, {}])
    const [a] = pools
    for (let i = 0; i < 100; i++) {
      a.acquire()
      await clock.advance(50)
      a.openDone()
      a.destroy()
      await clock.advance(10)
      a.closeDone()
    }
    expect(broker.stats().moveMs).toBeGreaterThan(58)
    expect(broker.stats().moveMs).toBeLessThan(62)
  })

  test('stats() tells of nobody before it has enrolled', () => {
    const member: Member = joinBroker({ name: 'not yet' })
    expect(member.stats()).toMatchObject({ name: 'not yet', members: [] })
    expect(() => member.enrol(new TestPool(member, () => 0))).toThrow(
      expect.objectContaining({ code: 'ERR_NO_BROKER' }),
    )
    expect(member.unsettled).toBe(false)
    member.settle()
    member.leave()
  })
})

describe('createBroker()', () => {
  test('returns the same broker for the same name and limit, and refuses another limit', async () => {
    const broker = createBroker({ name: 'same', limit: 4 })
    expect(createBroker({ name: 'same', limit: 4 })).toBe(broker)
    expect(() => createBroker({ name: 'same', limit: 5 })).toThrow(
      expect.objectContaining({ code: 'ERR_BROKER_EXISTS' }),
    )
    await broker.close()
    const next = createBroker({ name: 'same', limit: 5 })
    expect(next.limit).toBe(5)
    await next[Symbol.asyncDispose]()
  })

  test('refuses impossible options', () => {
    for (const options of [
      {},
      { name: '', limit: 1 },
      { name: 'a', limit: 0 },
      { name: 'a', limit: 1.5 },
      { name: 'a', limit: '5' },
      { name: 'a', limit: 1, members: 2_000 },
      { name: 'a', limit: 1, size: 1 },
    ]) {
      expect(() => createBroker(options as never)).toThrow(expect.objectContaining({ code: 'ERR_OPTION' }))
    }
  })
})

describe('limitPermits()', () => {
  test('makes the broker at once in the main thread, and joins it with the first use', () => {
    // Tests run in the main thread of a process of their own.
    const clock = new FakeClock()
    const permits = limitPermits({ limit: { name: 'db.example:5432/orders', connections: 3 }, clock })
    const broker = createBroker({ name: 'db.example:5432/orders', limit: 3 })
    expect(broker.stats().members).toHaveLength(0)
    permits.enrol(new TestPool(permits, () => clock.now()))
    expect(broker.stats().members).toHaveLength(1)
    permits.leave()
  })
})
