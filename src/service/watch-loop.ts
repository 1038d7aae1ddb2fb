import { monitorEventLoopDelay, performance } from 'node:perf_hooks'

/** How the event loop of one thread is doing. */
export interface EventLoopStats {
  /** How late it came to things within the last ten seconds, in ms. */
  readonly delayMs: { readonly p50: number; readonly p99: number; readonly max: number }
  /** The part of its time in which it was busy. 0 … 1 */
  readonly utilization: number
  /** For how long it has not come to say so: more than about a second, and it is blocked now. In ms. */
  readonly silentMs: number
}

/** Shared words of one thread, which it alone writes: a thread that is blocked can still be read. */
const word = { p50: 0, p99: 1, max: 2, utilization: 3, writtenAt: 4 } as const
const wordCount = 5

const resolutionMs = 50
const everyMs = 1_000
const windowMs = 10_000

export function createLoopWords(): Int32Array {
  const words = new Int32Array(new SharedArrayBuffer(4 * wordCount))
  Atomics.store(words, word.writtenAt, clock())
  return words
}

/** Measures this thread's event loop from now on. Keeps nothing alive. Returns what ends it. */
export function watchLoop(words: Int32Array): () => void {
  const delay = monitorEventLoopDelay({ resolution: resolutionMs })
  let before = performance.eventLoopUtilization()
  let since = clock()
  delay.enable()
  const timer = setInterval(() => {
    const now = clock()
    Atomics.store(words, word.p50, tenths(delay.percentile(50)))
    Atomics.store(words, word.p99, tenths(delay.percentile(99)))
    Atomics.store(words, word.max, delay.count === 0 ? 0 : tenths(delay.max))
    Atomics.store(words, word.utilization, Math.round(performance.eventLoopUtilization(before).utilization * 1e4))
    Atomics.store(words, word.writtenAt, now)
    if (((now - since) | 0) < windowMs) return
    delay.reset()
    before = performance.eventLoopUtilization()
    since = now
  }, everyMs).unref()
  return () => {
    delay.disable()
    clearInterval(timer)
  }
}

export function loopStats(words: Int32Array): EventLoopStats {
  const get = (index: number): number => Atomics.load(words, index)
  return {
    delayMs: { p50: get(word.p50) / 10, p99: get(word.p99) / 10, max: get(word.max) / 10 },
    utilization: get(word.utilization) / 1e4,
    silentMs: Math.max(0, (clock() - get(word.writtenAt)) | 0),
  }
}

/** It measures how far its own ticks are apart, in ns. */
function tenths(nanoseconds: number): number {
  return Math.max(0, Math.round(nanoseconds / 1e5) - resolutionMs * 10)
}

/** Milliseconds that all threads share; wraps after 24 days, which differences do not mind. */
function clock(): number {
  return Number(process.hrtime.bigint() / 1_000_000n) | 0
}
