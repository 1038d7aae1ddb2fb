import { systemClock } from './clock.ts'
import type { Clock } from './clock.ts'

/** A difference that no adjusted clock makes. */
const freezeMs = 1_000

/**
 * A clock for processes that are frozen between two calls: the monotonic clock may stand still meanwhile, the wall clock
 * does not. It runs as the monotonic one and leaps ahead by what it has missed; it never goes back.
 */
export function thawClock(wall: () => number = Date.now, clock: Clock = systemClock): Clock {
  let missedMs = 0
  let startedAt = wall() - clock.now()
  return {
    now() {
      const now = clock.now()
      const ahead = wall() - now - startedAt
      if (ahead > freezeMs) missedMs += ahead
      // A wall clock that was set is no time that has passed, if it went back.
      if (Math.abs(ahead) > freezeMs) startedAt += ahead
      return now + missedMs
    },
    setTimer: (fn, ms, keepAlive) => clock.setTimer(fn, ms, keepAlive),
  }
}
