import { longestTimerMs } from './clock.ts'
import type { Clock, Timer } from './clock.ts'

/** A timer that fires this much late speaks of a blocked event loop, behind which the answer may be waiting already. */
export const lateMs = 20

/**
 * Runs `fn` at a moment of the clock, however far away. Where the event loop was blocked until long after that, whatever
 * has arrived meanwhile comes first: a deadline is not to be missed by those who have met it.
 */
export function setDeadline(clock: Clock, at: number, fn: () => void, keepAlive = true): Timer {
  const wait = (): Timer => clock.setTimer(fire, Math.min(longestTimerMs, Math.max(0, at - clock.now())), keepAlive)
  const fire = (): void => {
    const over = clock.now() - at
    if (over < 0) timer = wait()
    else if (over > lateMs) timer = clock.setTimer(fn, 0, keepAlive)
    else fn()
  }
  let timer = wait()
  return { cancel: () => timer.cancel() }
}
