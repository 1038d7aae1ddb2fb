import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { lateMs } from '../../src/deadline-timer.ts'
import { Expiry } from '../../src/expiry.ts'
import type { Due } from '../../src/expiry.ts'
import { FakeClock } from '../../src/testing/clock.ts'

class Waiter {
  readonly timeoutMs: number
  readonly deadlineAt: number
  readonly #clock: FakeClock
  expiredAt: number | undefined

  constructor(clock: FakeClock, timeoutMs: number) {
    this.#clock = clock
    this.timeoutMs = timeoutMs
    this.deadlineAt = clock.now() + timeoutMs
  }

  expire(): void {
    if (this.expiredAt !== undefined) throw new Error('expired twice')
    this.expiredAt = this.#clock.now()
  }
}

describe('Expiry', () => {
  test('expires each at its deadline, and none that has been taken out', async () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('add' as const), timeoutMs: fc.constantFrom(1, 5, 30) }),
      fc.record({ do: fc.constant('remove' as const), which: fc.nat() }),
      fc.record({ do: fc.constant('pass' as const), ms: fc.nat(12) }),
    )
    const property = fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const clock = new FakeClock()
      const expiry = new Expiry(clock)
      const all: { waiter: Waiter; due: Due; removed: boolean }[] = []
      for (const one of steps) {
        if (one.do === 'add') {
          const waiter = new Waiter(clock, one.timeoutMs)
          all.push({ waiter, due: expiry.add(waiter), removed: false })
        } else if (one.do === 'remove') {
          const entry = all[one.which % Math.max(1, all.length)]
          if (!entry) continue
          expiry.remove(entry.due)
          if (entry.waiter.expiredAt === undefined) entry.removed = true
        } else await clock.advance(one.ms)
        const waiting = all.filter(({ waiter, removed }) => !removed && waiter.expiredAt === undefined)
        for (const { waiter } of waiting) expect(waiter.deadlineAt).toBeGreaterThan(clock.now())
        // One timer for all who may wait equally long, and none for nobody.
        expect(clock.timers.all).toBe(new Set(waiting.map(({ waiter }) => waiter.timeoutMs)).size)
      }
      await clock.advance(31)
      for (const { waiter, removed } of all) expect(waiter.expiredAt).toBe(removed ? undefined : waiter.deadlineAt)
      expect(clock.timers.all).toBe(0)
    })
    await fc.assert(property, { numRuns: 300 })
  })

  test('lets who comes late in after a stall: the answer may be waiting behind it', () => {
    const due: (() => void)[] = []
    let now = 0
    const expiry = new Expiry({
      now: () => now,
      setTimer: (fn, ms) => {
        due.push(fn)
        expect(ms).toBe(due.length === 1 ? 100 : 0)
        return { cancel: () => undefined }
      },
    })
    const expired: string[] = []
    const waiter = (name: string): Due =>
      expiry.add({ timeoutMs: 100, deadlineAt: now + 100, expire: () => void expired.push(name) })
    const [served] = [waiter('served'), waiter('left')]
    now = 100 + lateMs + 1
    due[0]!()
    expect(expired).toEqual([])
    expiry.remove(served)
    due[1]!()
    expect(expired).toEqual(['left'])
  })

  test('who is expired may expire, remove and add others', async () => {
    const clock = new FakeClock()
    const expiry = new Expiry(clock)
    const said: string[] = []
    const add = (name: string, expire: () => void = () => undefined): Due =>
      expiry.add({ timeoutMs: 10, deadlineAt: clock.now() + 10, expire: () => (said.push(name), expire()) })
    add('first', () => {
      expiry.remove(second)
      add('later')
    })
    const second = add('second')
    add('third')
    await clock.advance(10)
    expect(said).toEqual(['first', 'third'])
    await clock.advance(10)
    expect(said).toEqual(['first', 'third', 'later'])
    expect(clock.timers.all).toBe(0)
  })

  test('a line that has been left empty by who is expired is not taken for the next one', async () => {
    const clock = new FakeClock()
    const expiry = new Expiry(clock)
    const never = new Waiter(clock, 10)
    let added: Due | undefined
    const onlyOther = expiry.add({
      timeoutMs: 10,
      deadlineAt: clock.now() + 10,
      expire: () => {
        expiry.remove(other)
        added = expiry.add(new Waiter(clock, 10))
      },
    })
    const other = expiry.add(never)
    expect(onlyOther.deque).toBeDefined()
    await clock.advance(10)
    expiry.remove(added!)
    expect(clock.timers.all).toBe(0)
    expect(never.expiredAt).toBeUndefined()
  })
})
