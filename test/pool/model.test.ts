import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Core } from '../../src/core.ts'
import { ConnectError } from '../../src/errors.ts'
import type { Permits } from '../../src/permits.ts'
import type { Slot } from '../../src/slot.ts'
import { Waiter } from '../../src/waiters.ts'

// The core beside a model that does the same with plain lists, and nothing clever.

type State = 'opening' | 'idle' | 'checking' | 'leased' | 'resetting' | 'closing' | 'gone'

/** What the model knows of a slot. */
interface Place {
  slot: Slot<object>
  state: State
  generation: number
  idleAt: number
  provenAt: number
  expiresAt: number
  uses: number
  for: Waiter<Slot<object>> | undefined
}

const pingAfterIdleMs = 100
const maxLifetimeMs = 1_000
const seed = Number(process.env['SEED'] ?? Math.trunc(Math.random() * 2 ** 31))

const permits: Permits = {
  unsettled: false,
  enrol() {},
  settle() {},
  yields: () => false,
  opened() {},
  closing() {},
  give() {},
  leave() {},
}

class Model {
  phase: 'open' | 'draining' | 'closed' = 'open'
  waiting: Waiter<Slot<object>>[] = []
  idle: Place[] = []
  readonly places: Place[] = []
  served: [Waiter<Slot<object>>, Slot<object>][] = []
  refused: Waiter<Slot<object>>[] = []
  generation = 0
  suspectBefore = -Infinity
  failures = 0
  until = -Infinity
  max: number
  min: number
  maxIdle: number
  now = 0
  /** How many were idle at any time of each quarter of the idle timeout. */
  quarters: number[][] = [[0], [0], [0], [0]]
  quarter: number[] = [0]

  constructor(min: number, max: number) {
    this.min = min
    this.max = max
    this.maxIdle = max
  }

  count(...states: State[]): number {
    return this.places.filter(({ state }) => states.includes(state)).length
  }

  get size(): number {
    return this.places.length - this.count('gone')
  }

  get living(): number {
    return this.count('idle', 'checking', 'leased', 'resetting')
  }

  get lacking(): number {
    if (this.phase !== 'open' || this.now < this.until) return 0
    const opening = this.count('opening')
    const wanted = Math.max(0, this.waiting.length - opening, this.min - this.living - opening)
    const room = Math.min(wanted, this.max - this.size)
    return this.failures > 0 && room > 0 ? (opening > 0 ? 0 : 1) : room
  }

  close(place: Place): void {
    this.unrest(place)
    place.state = 'closing'
  }

  unrest(place: Place): void {
    if (!this.idle.includes(place)) return
    this.idle = this.idle.filter((one) => one !== place)
    this.quarter.push(this.idle.length)
  }

  isSpent(place: Place): boolean {
    if (this.phase !== 'open' || place.generation !== this.generation || this.now >= place.expiresAt) return true
    return this.count('opening', 'idle', 'checking', 'leased', 'resetting') > this.max
  }

  /** The one used last that can be lent; what cannot goes on the way. */
  next(): Place | undefined {
    for (;;) {
      const place = this.idle.at(-1)
      if (!place || !this.isSpent(place)) return place
      this.close(place)
    }
  }

  needsPing({ idleAt, provenAt }: Place): boolean {
    return this.now - idleAt > pingAfterIdleMs || provenAt < this.suspectBefore
  }

  lend(place: Place): void {
    this.unrest(place)
    place.state = 'leased'
    place.uses++
  }

  serve(waiter: Waiter<Slot<object>>, place: Place): void {
    this.lend(place)
    this.served.push([waiter, place.slot])
  }

  /** First who waits, then rest. */
  put(place: Place): void {
    if (this.isSpent(place)) return this.close(place)
    const waiter = this.waiting.shift()
    if (waiter) return this.serve(waiter, place)
    if (this.idle.length >= this.maxIdle) return this.close(place)
    place.state = 'idle'
    this.idle.push(place)
  }

  /** By turn. */
  wait(waiter: Waiter<Slot<object>>): void {
    const place = this.next()
    if (!place) this.waiting = [...this.waiting, waiter].toSorted((a, b) => a.turn - b.turn)
    else if (this.needsPing(place)) this.check(place, waiter)
    else this.serve(waiter, place)
  }

  check(place: Place, waiter: Waiter<Slot<object>>): void {
    this.unrest(place)
    place.state = 'checking'
    place.for = waiter
  }

  refuseAll(): void {
    this.refused.push(...this.waiting)
    this.waiting = []
  }
}

const command = fc.record({
  kind: fc.constantFrom(
    ...(['acquire', 'acquire', 'acquire', 'release', 'release', 'open ok', 'open ok', 'check ok', 'closed'] as const),
    ...(['closed', 'open failed', 'open late', 'open incurable', 'check failed', 'abort', 'timeout'] as const),
    ...(['destroy', 'reset', 'cleaned', 'lost', 'evict', 'resize', 'sweep', 'late sweep', 'time'] as const),
    ...(['give back', 'close'] as const),
  ),
  index: fc.nat({ max: 15 }),
  ms: fc.nat({ max: 120 }),
})

test(`the core does what its model does, step by step (SEED=${seed})`, { timeout: 60_000 }, () => {
  let steps = 0
  const bounds = fc.record({ min: fc.nat({ max: 2 }), max: fc.integer({ min: 2, max: 5 }) })
  const property = fc.property(
    fc.array(command, { minLength: 100, maxLength: 200, size: 'max' }),
    bounds,
    (all, of) => {
      const model = new Model(of.min, of.max)
      const { min, max } = of
      const core = new Core<object>(
        {
          name: 'p',
          min,
          max,
          maxIdle: max,
          order: 'lifo',
          maxWaiting: Infinity,
          maxUses: Infinity,
          timings: false,
          maxLifetimeMs,
          idleTimeoutMs: 400,
          pingAfterIdleMs,
        },
        permits,
        () => 0.5,
      )
      const asked: Waiter<Slot<object>>[] = []
      let quarterEndsAt = -Infinity
      const pick = (state: State, index: number): Place | undefined => {
        const places = model.places.filter((place) => place.state === state)
        return places[index % Math.max(1, places.length)]
      }
      const failed = (): void => {
        model.until = model.now + (model.failures === 0 ? 0 : Math.min(5_000, 50 * 2 ** (model.failures - 1)))
        model.failures++
      }
      const rounds = new Map<Place, number>()
      let round = 0
      const failedIn = (place: Place): void => {
        if ((rounds.get(place) ?? 0) < round) return
        round++
        failed()
      }
      for (const { kind, index, ms } of all) {
        steps++
        const { now } = model
        if (kind === 'time') model.now += ms
        else if (kind === 'acquire') {
          const place = model.next()
          const taken = core.take(now)
          if (place && !model.needsPing(place)) {
            model.lend(place)
            expect(taken).toBe(place.slot)
          } else {
            expect(taken).toBeUndefined()
            const waiter = new Waiter<Slot<object>>(now, Infinity, { serve() {}, fail() {}, expire() {} })
            core.wait(waiter, now)
            if (model.phase === 'open') model.wait(waiter)
            else model.refused.push(waiter)
            asked.push(waiter)
          }
        } else if (kind === 'abort' || kind === 'timeout') {
          const waiter = asked.splice(index % Math.max(1, asked.length), 1)[0]
          if (waiter) {
            const place = model.places.find((one) => one.for === waiter)
            const pending = model.waiting.includes(waiter) || place !== undefined
            expect(kind === 'abort' ? core.abort(waiter) : core.timeOut(waiter)).toBe(pending)
            model.waiting = model.waiting.filter((one) => one !== waiter)
            if (place) place.for = undefined
          }
        } else if (kind === 'open ok') {
          const place = pick('opening', index)
          if (place) {
            core.opened(place.slot, {}, now)
            model.failures = 0
            model.until = -Infinity
            Object.assign(place, { idleAt: now, provenAt: now, expiresAt: now + maxLifetimeMs * 0.95 })
            model.put(place)
          }
        } else if (kind === 'open failed' || kind === 'open late' || kind === 'open incurable') {
          const place = pick('opening', index)
          if (place) {
            const [doubtful, retryable] = [kind === 'open late', kind !== 'open incurable']
            core.openFailed(place.slot, new ConnectError('no', { doubtful, retryable }), now)
            failedIn(place)
            place.state = doubtful ? 'closing' : 'gone'
            if (!retryable) model.refuseAll()
          }
        } else if (kind === 'check ok' || kind === 'check failed') {
          const place = pick('checking', index)
          if (place) {
            core.checked(place.slot, kind === 'check ok' ? undefined : 'ping failed', now)
            const waiter = place.for
            place.for = undefined
            place.provenAt = now
            if (kind === 'check failed') {
              if (place.uses === 0) failedIn(place)
            } else if (place.uses === 0) {
              model.failures = 0
              model.until = -Infinity
            }
            if (kind === 'check failed' || (waiter && model.isSpent(place))) {
              model.close(place)
              if (waiter) model.wait(waiter)
            } else if (waiter) model.serve(waiter, place)
            else model.put(place)
          }
        } else if (kind === 'release' || kind === 'cleaned') {
          const place = pick(kind === 'release' ? 'leased' : 'resetting', index)
          if (place) {
            core.released(place.slot, now)
            Object.assign(place, { idleAt: now, provenAt: now })
            model.put(place)
          }
        } else if (kind === 'reset') {
          const place = pick('leased', index)
          if (place) {
            core.resetting(place.slot)
            place.state = 'resetting'
          }
        } else if (kind === 'destroy') {
          const place = pick(index % 2 === 0 ? 'leased' : 'resetting', index)
          if (place) {
            core.destroy(place.slot, 'destroyed')
            model.close(place)
          }
        } else if (kind === 'lost') {
          const place = pick((['idle', 'leased', 'checking', 'resetting'] as const)[index % 4] ?? 'idle', index)
          if (place) {
            core.lost(place.slot, now)
            const waiter = place.for
            place.for = undefined
            model.close(place)
            model.suspectBefore = now
            if (waiter) model.wait(waiter)
          }
        } else if (kind === 'closed') {
          const place = pick('closing', index)
          if (place) {
            core.closed(place.slot)
            place.state = 'gone'
          }
        } else if (kind === 'evict') {
          core.evict()
          model.generation++
          for (const place of model.idle.slice()) model.close(place)
        } else if (kind === 'resize') {
          model.max = 1 + (index % 5)
          model.min = Math.min(model.max, ms % 3)
          model.maxIdle = Math.max(model.min, Math.min(model.max, ms % 6))
          core.resize({ min: model.min, max: model.max, maxIdle: model.maxIdle })
          const isTooMuch = (): boolean =>
            model.idle.length > model.maxIdle || model.size - model.count('closing') > model.max
          for (const place of model.idle.slice()) if (isTooMuch()) model.close(place)
        } else if (kind === 'give back') {
          const given = core.releaseIdle().length
          const spare = Math.max(0, model.living + model.count('opening') - model.min)
          const places = model.idle.slice(0, spare)
          for (const place of places) model.close(place)
          expect(given).toBe(places.length)
        } else if (kind === 'sweep' || kind === 'late sweep') {
          core.sweep(now, kind === 'late sweep')
          for (const place of model.idle.slice()) if (model.isSpent(place)) model.close(place)
          if (now >= quarterEndsAt) {
            quarterEndsAt = now + 100
            const over = kind === 'late sweep' ? [[0], [0], [0], [0]] : [...model.quarters.slice(1), model.quarter]
            model.quarters = over
            model.quarter = [model.idle.length]
            const unneeded = Math.min(...over.flat())
            const spare = Math.max(0, model.living + model.count('opening') - model.min)
            for (const place of model.idle.slice(0, Math.min(unneeded, spare))) model.close(place)
          }
        } else if (kind === 'close' && index === 0 && ms < 30) {
          core.close('test')
          if (model.phase === 'open') model.phase = 'draining'
          model.refuseAll()
          for (const place of model.idle.slice()) model.close(place)
          for (const place of model.places) {
            if (place.for) model.refused.push(place.for)
            place.for = undefined
          }
        }
        // What is lacking is opened, one after the other.
        for (;;) {
          expect(core.lacking(model.now)).toBe(Math.max(0, model.lacking))
          if (model.lacking <= 0) break
          core.open({ tag: `t${model.places.length}` }, model.now)
          const opened = core.actions.at(-1)
          if (opened?.do !== 'open') throw new Error('it opens')
          const { generation } = model
          const place = { slot: opened.slot, state: 'opening', generation, idleAt: 0, provenAt: 0 } as const
          model.places.push({ ...place, expiresAt: Infinity, uses: 0, for: undefined })
          rounds.set(model.places.at(-1) as Place, round)
        }
        if (model.phase === 'draining' && model.size === 0) model.phase = 'closed'
        core.assertInvariants()
        const { phase, waiting, idle, leased, opening, closing, open } = core.stats()
        expect({ phase, waiting, idle, leased, opening, closing, open }).toEqual({
          phase: model.phase,
          waiting: model.waiting.length,
          idle: model.idle.length,
          leased: model.count('leased'),
          opening: model.count('opening'),
          closing: model.count('closing'),
          open: model.living,
        })
        // In the order of their turns, and each with the connection that the model gives.
        const actions = core.actions.splice(0)
        const served = actions.flatMap((action) =>
          action.do === 'serve' ? [[action.waiter, action.slot] as const] : [],
        )
        expect(served.map(([waiter, { permit }]) => [waiter.turn, permit.tag])).toEqual(
          model.served.splice(0).map(([waiter, { permit }]) => [waiter.turn, permit.tag]),
        )
        const refused = actions.flatMap((action) => (action.do === 'fail' ? [action.waiter.turn] : []))
        expect(refused).toEqual(model.refused.splice(0).map(({ turn }) => turn))
      }
    },
  )
  fc.assert(property, { seed, numRuns: 750 })
  expect(steps).toBeGreaterThanOrEqual(100_000)
})
