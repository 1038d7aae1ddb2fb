import { describe, expect, test } from 'vitest'
import { longestTimerMs } from '../../src/clock.ts'
import type { Clock, Timer } from '../../src/clock.ts'
import { lateMs, setDeadline } from '../../src/deadline-timer.ts'
import { FakeClock } from '../../src/testing/index.ts'

/** A clock whose timers fire when they are told to, whatever it says. */
class Loop implements Clock {
  time = 0
  readonly timers: { fn: () => void; ms: number; keepAlive: boolean | undefined }[] = []

  now(): number {
    return this.time
  }

  setTimer(fn: () => void, ms: number, keepAlive?: boolean): Timer {
    const timer = { fn, ms, keepAlive }
    this.timers.push(timer)
    return { cancel: () => void this.timers.splice(this.timers.indexOf(timer), 1) }
  }

  fire(): void {
    this.timers.shift()?.fn()
  }
}

describe('setDeadline()', () => {
  test('setDeadline() runs at its moment, once', async () => {
    const clock = new FakeClock()
    let runs = 0
    setDeadline(clock, clock.now() + 50, () => runs++)
    await clock.advance(49)
    expect(runs).toBe(0)
    await clock.advance(1)
    expect(runs).toBe(1)
    await clock.advance(1_000)
    expect([runs, clock.timers.all]).toEqual([1, 0])
  })

  test('setDeadline() of a moment that has passed runs with the next timers, not at once', async () => {
    const clock = new FakeClock()
    let runs = 0
    setDeadline(clock, clock.now() - 5, () => runs++)
    expect(runs).toBe(0)
    await clock.advance(0)
    expect(runs).toBe(1)
  })

  test('setDeadline() goes on waiting where a timer fires early, and beyond the longest timer', () => {
    const clock = new Loop()
    let runs = 0
    setDeadline(clock, longestTimerMs + 100, () => runs++)
    expect(clock.timers[0]?.ms).toBe(longestTimerMs)
    clock.time = longestTimerMs
    clock.fire()
    expect([runs, clock.timers[0]?.ms]).toEqual([0, 100])
    clock.time += 99.5
    clock.fire()
    expect([runs, clock.timers[0]?.ms]).toEqual([0, 0.5])
    clock.time += 0.5
    clock.fire()
    expect([runs, clock.timers.length]).toEqual([1, 0])
  })

  test.each([
    [lateMs, 0],
    [lateMs + 1, 1],
  ])('setDeadline() that fires %i ms late lets what has arrived come first: %i more timer', (late, more) => {
    const clock = new Loop()
    let runs = 0
    setDeadline(clock, 50, () => runs++)
    clock.time = 50 + late
    clock.fire()
    expect([runs, clock.timers.length]).toEqual([1 - more, more])
    clock.fire()
    expect([runs, clock.timers.length]).toEqual([1, 0])
  })

  test.each([49, 50 + lateMs + 1])('setDeadline() that is cancelled at %i does not run', (at) => {
    const clock = new Loop()
    const deadline = setDeadline(clock, 50, () => expect.unreachable())
    clock.time = at
    clock.fire()
    deadline.cancel()
    expect(clock.timers).toEqual([])
  })

  test.each([true, false])('setDeadline() keeps the process alive or not with all of its timers: %s', (keepAlive) => {
    const clock = new Loop()
    setDeadline(clock, 50, () => undefined, keepAlive)
    expect(clock.timers[0]?.keepAlive).toBe(keepAlive)
    clock.fire()
    expect(clock.timers[0]?.keepAlive).toBe(keepAlive)
    clock.time = 500
    clock.fire()
    expect(clock.timers[0]?.keepAlive).toBe(keepAlive)
  })
})
