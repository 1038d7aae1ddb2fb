/** A timer that has been set. Cancelling one that has fired does nothing. */
export interface Timer {
  cancel(): void
}

/** Where time comes from. Everything that waits takes one, so that tests can move time by hand. */
export interface Clock {
  /** Milliseconds of a clock that never goes back and that all threads of the process share. */
  now(): number
  /** As `now()`, read once in each turn of the event loop at the most. Without it, `now()` is read each time. */
  coarse?(): number
  /**
   * Runs `fn` once, `ms` milliseconds from now.
   * @param keepAlive whether the timer keeps the process alive. Default: true
   */
  setTimer(fn: () => void, ms: number, keepAlive?: boolean): Timer
}

/** Node's longest timer; what is longer is taken in steps by those who need it. */
export const longestTimerMs: number = 2 ** 31 - 1

// `performance.now()` counts from the start of its thread, `hrtime` from a point that all threads share.
const sharedOrigin = Number(process.hrtime.bigint()) / 1e6 - performance.now()

function forgetCoarse(): void {
  isCoarseStale = true
}

let coarse = 0
let isCoarseStale = true

/** The real clock. */
export const systemClock: Clock = {
  now: () => sharedOrigin + performance.now(),
  coarse() {
    if (isCoarseStale) {
      isCoarseStale = false
      coarse = sharedOrigin + performance.now()
      // Not unreferenced: the loop could sleep before it, and what wakes it up would see the time it fell asleep.
      setImmediate(forgetCoarse)
    }
    return coarse
  },
  setTimer(fn, ms, keepAlive = true) {
    const timer = setTimeout(fn, Math.min(ms, longestTimerMs))
    if (!keepAlive) timer.unref()
    return { cancel: () => clearTimeout(timer) }
  },
}
