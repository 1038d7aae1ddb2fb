import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Core } from '../../src/core.ts'
import type { Action } from '../../src/action.ts'
import type { CoreOptions } from '../../src/options.ts'
import { ConnectError } from '../../src/errors.ts'
import { Lull } from '../../src/lull.ts'
import type { Permit, Permits } from '../../src/permits.ts'
import { Slot, move, state } from '../../src/slot.ts'
import type { Waiter } from '../../src/waiters.ts'
import { Silent } from './support.ts'

interface Connection {
  id: number
}

const options: CoreOptions = {
  name: 'p',
  min: 0,
  max: 3,
  maxIdle: 3,
  order: 'lifo',
  maxWaiting: Infinity,
  maxLifetimeMs: 1_000,
  idleTimeoutMs: 400,
  maxUses: Infinity,
  timings: false,
  pingAfterIdleMs: 100,
}

/** Permits that can be counted, up to a limit, and that take connections away when told to. */
class CountedPermits implements Permits {
  readonly lull = new Lull()
  readonly unsettled = false
  readonly out = new Set<Permit>()
  readonly limit: number
  reclaim = false
  #made = 0

  constructor(limit: number) {
    this.limit = limit
  }

  take(): Permit | undefined {
    if (this.out.size >= this.limit) return undefined
    const permit = { tag: `t${++this.#made}` }
    this.out.add(permit)
    return permit
  }

  give(permit: Permit): void {
    if (!this.out.delete(permit)) throw new Error(`given twice: ${permit.tag}`)
  }

  yields(): boolean {
    return this.reclaim
  }

  enrol(): void {}
  settle(): void {}
  opened(): void {}
  closing(): void {}
  leave(): void {}
}

/** The core with somebody who opens, and answers in whatever order the test likes. */
class Bench {
  readonly permits: CountedPermits
  readonly core: Core<Connection>
  readonly answers = new Map<Waiter<Slot<Connection>>, Slot<Connection> | Error>()
  readonly waiting: Waiter<Slot<Connection>>[] = []
  readonly opening: Slot<Connection>[] = []
  readonly pinging: Slot<Connection>[] = []
  readonly leased: Slot<Connection>[] = []
  readonly closing: Slot<Connection>[] = []
  now = 0
  #ids = 0

  constructor(over: Partial<CoreOptions> = {}, limit = Infinity) {
    this.permits = new CountedPermits(limit)
    this.core = new Core({ ...options, ...over }, this.permits, () => 0.5)
  }

  settle(): void {
    while (this.core.lacking(this.now) > 0) {
      const permit = this.permits.take()
      if (!permit) break
      this.core.open(permit, this.now)
    }
    for (const action of this.core.actions.splice(0)) this.perform(action)
    this.core.assertInvariants()
    expect(this.core.size).toBe(this.permits.out.size)
  }

  perform(action: Action<Connection>): void {
    switch (action.do) {
      case 'open':
        return void this.opening.push(action.slot)
      case 'check':
        return void this.pinging.push(action.slot)
      case 'close':
        return void this.closing.push(action.slot)
      case 'reap':
      case 'expire':
        return undefined
      case 'serve':
        expect(this.answers.has(action.waiter)).toBe(false)
        this.answers.set(action.waiter, action.slot)
        return void this.leased.push(action.slot)
      case 'fail':
        expect(this.answers.has(action.waiter)).toBe(false)
        return void this.answers.set(action.waiter, action.error as Error)
    }
  }

  acquire(): void {
    const slot = this.core.take(this.now)
    if (slot) this.leased.push(slot)
    else {
      const waiter = new Silent<Connection>(this.now, Infinity)
      this.waiting.push(waiter)
      this.core.wait(waiter, this.now)
    }
    this.settle()
  }

  openNext(): void {
    const slot = this.opening.shift()
    if (slot) this.core.opened(slot, { id: ++this.#ids }, this.now)
    this.settle()
  }
}

function pick<T>(from: T[], index: number): T | undefined {
  return from.length === 0 ? undefined : from.splice(index % from.length, 1)[0]
}

describe('Core', () => {
  test('Core.lacking() asks for as many openings as waiters outnumber them, within max', () => {
    const bench = new Bench({ max: 3 })
    bench.acquire()
    expect(bench.opening).toHaveLength(1)
    for (let i = 0; i < 5; i++) bench.acquire()
    expect(bench.opening).toHaveLength(3)
    bench.openNext()
    expect(bench.core.lacking(bench.now)).toBe(0)
  })

  test('Core.opened() gives the connection to the head of the queue, whoever asked for it', () => {
    const bench = new Bench({ max: 2 })
    bench.acquire()
    bench.acquire()
    const [first, second] = bench.waiting
    bench.core.abort(first as Waiter<Slot<Connection>>)
    bench.openNext()
    expect(bench.answers.get(second as Waiter<Slot<Connection>>)).toBe(bench.leased[0])
  })

  test('Core.released() closes the connection when somebody elsewhere is worse off', () => {
    const bench = new Bench()
    bench.acquire()
    bench.openNext()
    bench.permits.reclaim = true
    bench.core.released(bench.leased[0] as Slot<Connection>, bench.now)
    bench.settle()
    expect(bench.core.stats()).toMatchObject({ closing: 1, closes: { reclaimed: 1 } })
    expect(bench.permits.out.size).toBe(1)
    bench.core.closed(bench.closing[0] as Slot<Connection>)
    expect(bench.permits.out.size).toBe(0)
  })

  test('Core.openFailed() makes one attempt at a time until one succeeds', () => {
    const bench = new Bench({ max: 3 })
    for (let i = 0; i < 3; i++) bench.acquire()
    for (const slot of bench.opening.splice(0)) bench.core.openFailed(slot, new Error('refused'), bench.now)
    bench.now += 10_000
    bench.settle()
    expect(bench.opening).toHaveLength(1)
    bench.openNext()
    expect(bench.opening).toHaveLength(2)
  })

  test('Core draws the lifetime once, when the connection opens', () => {
    const bench = new Bench()
    bench.acquire()
    bench.openNext()
    expect(bench.leased[0]?.expiresAt).toBe(950)
  })

  test('Core.phaseOf() says permit where there is room but no permit, queue where there is none', () => {
    const bench = new Bench({ max: 1 }, 0)
    bench.acquire()
    const [waiter] = bench.waiting as [Waiter<Slot<Connection>>]
    expect(bench.core.phaseOf(waiter)).toBe('permit')
    const full = new Bench({ max: 1 })
    full.acquire()
    full.openNext()
    full.acquire()
    expect(full.core.phaseOf(full.waiting[1] as Waiter<Slot<Connection>>)).toBe('queue')
  })

  test('Core.open() beyond max is a bug, and says so', () => {
    const bench = new Bench({ max: 1 })
    bench.acquire()
    expect(() => bench.core.open({ tag: 't' }, 0)).toThrow('bug: a slot beyond max')
  })

  test('a slot that moves where it may not is a bug, and says so', () => {
    const slot = new Slot<Connection>({ tag: 't' }, { round: 0, generation: 0 })
    expect(() => move(slot, state.resetting)).toThrow('bug: a slot cannot move from opening to resetting')
  })

  test('Core.retireIdle() closes the one that has idled longest, or of those with certain permits', () => {
    const bench = new Bench({ max: 3 })
    for (let i = 0; i < 3; i++) bench.acquire()
    for (let i = 0; i < 3; i++) bench.openNext()
    const slots = bench.leased.splice(0) as [Slot<Connection>, Slot<Connection>, Slot<Connection>]
    for (const slot of slots) bench.core.released(slot, bench.now)
    const isLast = (permit: Permit): boolean => permit === slots[2].permit
    expect(bench.core.hasIdle(isLast)).toBe(true)
    expect(bench.core.retireIdle(isLast)).toBe(true)
    expect([bench.core.hasIdle(isLast), bench.core.retireIdle(isLast)]).toEqual([false, false])
    expect(bench.core.retireIdle()).toBe(true)
    expect(slots.map((slot) => slot.state)).toEqual([state.closing, state.idle, state.closing])
  })

  test('Core.wait() for the pool itself goes before everybody, and is refused like everybody', () => {
    const bench = new Bench({ max: 1 })
    bench.acquire()
    bench.openNext()
    bench.acquire()
    expect(bench.core.first).toBe(bench.waiting[1])
    const own = new Silent<Connection>(0, Infinity)
    bench.core.wait(own, bench.now, true)
    expect(bench.core.first).toBeUndefined()
    bench.core.released(bench.leased[0] as Slot<Connection>, bench.now)
    bench.settle()
    expect([own.state, bench.waiting[1]?.state]).toEqual(['served', 'waiting'])
    bench.core.refuse(new Error('no broker'))
    bench.settle()
    expect(bench.waiting[1]?.state).toBe('refused')
    bench.acquire()
    expect(bench.waiting.at(-1)?.state).toBe('refused')
  })

  test('Core.checked() of a connection that was evicted meanwhile closes it, and its waiter gets the next', () => {
    const bench = new Bench({ max: 2 })
    for (let i = 0; i < 2; i++) bench.acquire()
    for (let i = 0; i < 2; i++) bench.openNext()
    const [first, second] = bench.leased.splice(0) as [Slot<Connection>, Slot<Connection>]
    bench.core.released(first, bench.now)
    bench.now += 200
    bench.acquire()
    expect(bench.pinging).toEqual([first])
    bench.core.evict()
    bench.core.released(second, bench.now)
    bench.core.checked(first, undefined, bench.now)
    bench.settle()
    expect(bench.closing).toEqual([second, first])
    expect(bench.core.waiting).toBe(1)
    bench.core.closed(first)
    bench.core.closed(first)
    bench.settle()
    bench.openNext()
    expect(bench.waiting.at(-1)?.state).toBe('served')
  })

  test('Core.checked() that failed serves its waiter with an idle connection that needs no ping', () => {
    const bench = new Bench({ max: 2 })
    for (let i = 0; i < 2; i++) bench.acquire()
    for (let i = 0; i < 2; i++) bench.openNext()
    const [first, second] = bench.leased.splice(0) as [Slot<Connection>, Slot<Connection>]
    bench.core.released(first, bench.now)
    bench.now += 200
    bench.acquire()
    bench.core.released(second, bench.now)
    bench.core.checked(first, 'ping failed', bench.now)
    bench.settle()
    expect(bench.leased).toEqual([second])
  })

  test('Core.retireIdle(), releaseIdle() and resize() take only what is idle', () => {
    const bench = new Bench({ max: 3 })
    expect(bench.core.retireIdle()).toBe(false)
    for (let i = 0; i < 3; i++) bench.acquire()
    for (let i = 0; i < 3; i++) bench.openNext()
    expect(bench.core.releaseIdle()).toEqual([])
    bench.core.resize({ min: 0, max: 1, maxIdle: 1 })
    bench.settle()
    expect(bench.closing).toEqual([])
    for (const slot of bench.leased.splice(0)) bench.core.released(slot, bench.now)
    bench.settle()
    expect(bench.closing).toHaveLength(2)
    expect(bench.core.revoke()).toBe(0)
  })

  test('Core tells the permits how it stands', () => {
    const bench = new Bench({ max: 2 })
    bench.now = 5
    bench.acquire()
    expect(bench.core).toMatchObject({ waiting: 1, oldestWaiterAt: 5, opening: 1, idle: 0, oldestIdleAt: undefined })
    bench.openNext()
    bench.now = 9
    bench.core.released(bench.leased[0] as Slot<Connection>, bench.now)
    expect(bench.core).toMatchObject({ waiting: 0, oldestWaiterAt: undefined, opening: 0, idle: 1, oldestIdleAt: 9 })
  })

  test('Core keeps its invariants through any sequence of events, and loses no permit and no waiter', () => {
    const event = fc.record({
      kind: fc.constantFrom(
        'acquire',
        'acquire',
        'release',
        'release',
        'open ok',
        'open ok',
        'open failed',
        'open doubtful',
        'open incurable',
        'ping ok',
        'ping failed',
        'abort',
        'time out',
        'lost',
        'destroy',
        'closed',
        'closed',
        'doubt',
        'retire idle',
        'sweep',
        'late sweep',
        'time passes',
        'reclaim',
        'reset',
        'press',
        'spare',
        'close',
      ),
      index: fc.nat({ max: 7 }),
      ms: fc.nat({ max: 400 }),
    })
    let steps = 0
    fc.assert(
      fc.property(
        fc.array(event, { maxLength: 120, size: 'max' }),
        fc.record({
          min: fc.nat({ max: 1 }),
          max: fc.integer({ min: 1, max: 4 }),
          limit: fc.integer({ min: 1, max: 5 }),
        }),
        (events, { min, max, limit }) => {
          const bench = new Bench({ min, max, maxIdle: max }, limit)
          const { core } = bench
          const resetting: Slot<Connection>[] = []
          const all = (): Slot<Connection>[] => [...bench.leased, ...bench.pinging, ...resetting]
          for (const { kind, index, ms } of events) {
            steps++
            if (kind === 'acquire') bench.acquire()
            else if (kind === 'open ok') bench.openNext()
            else if (kind === 'open failed' || kind === 'open doubtful' || kind === 'open incurable') {
              const slot = pick(bench.opening, index)
              const error = new ConnectError('no', {
                doubtful: kind === 'open doubtful',
                retryable: kind !== 'open incurable',
              })
              if (slot) core.openFailed(slot, error, bench.now)
              if (slot && kind === 'open doubtful') bench.closing.push(slot)
            } else if (kind === 'release') {
              const slot = pick(bench.leased, index)
              if (slot) core.released(slot, bench.now)
            } else if (kind === 'reset') {
              const slot = pick(bench.leased, index)
              if (slot?.state === state.leased) {
                core.resetting(slot)
                resetting.push(slot)
              } else {
                const done = pick(resetting, index)
                if (done) core.released(done, bench.now)
              }
            } else if (kind === 'ping ok' || kind === 'ping failed') {
              const slot = pick(bench.pinging, index)
              if (slot) core.checked(slot, kind === 'ping ok' ? undefined : 'ping failed', bench.now)
            } else if (kind === 'abort' || kind === 'time out') {
              const waiter = pick(bench.waiting, index)
              if (waiter) void (kind === 'abort' ? core.abort(waiter) : core.timeOut(waiter))
            } else if (kind === 'lost') {
              const slot = all()[index]
              if (slot) core.lost(slot, bench.now)
            } else if (kind === 'destroy') {
              const slot = pick(bench.leased, index)
              if (slot) core.destroy(slot, 'destroyed')
            } else if (kind === 'closed') {
              const slot = pick(bench.closing, index)
              if (slot) core.closed(slot)
            } else if (kind === 'doubt') {
              const slot = bench.closing[index]
              if (slot) core.inDoubt(slot)
            } else if (kind === 'retire idle') core.retireIdle()
            else if (kind === 'sweep' || kind === 'late sweep') core.sweep(bench.now, kind === 'late sweep')
            else if (kind === 'time passes') bench.now += ms
            else if (kind === 'reclaim') bench.permits.reclaim = !bench.permits.reclaim
            else if (kind === 'press') core.pressedAt = index % 2 === 0 ? bench.now : undefined
            else if (kind === 'spare') {
              const { first } = core
              if (first) core.spare(first, bench.now)
            } else if (kind === 'close' && index === 0) core.close('test')
            bench.settle()
          }
          // Everything ends well: whoever waits is served or refused, and all permits come back.
          core.close('test')
          bench.settle()
          for (let slot = pick(bench.opening, 0); slot; slot = pick(bench.opening, 0))
            core.openFailed(slot, new Error(), bench.now)
          for (let slot = pick(bench.pinging, 0); slot; slot = pick(bench.pinging, 0))
            core.checked(slot, undefined, bench.now)
          for (const slot of bench.leased) core.released(slot, bench.now)
          for (const slot of resetting) core.released(slot, bench.now)
          bench.settle()
          for (const slot of bench.closing) core.closed(slot)
          expect(core.phase).toBe('closed')
          expect(bench.permits.out.size).toBe(0)
          for (const waiter of bench.waiting) expect(waiter.state).not.toBe('waiting')
        },
      ),
      { numRuns: 1_000, ...(process.env['SEED'] === undefined ? {} : { seed: Number(process.env['SEED']) }) },
    )
    expect(steps).toBeGreaterThan(20_000)
  })
})
