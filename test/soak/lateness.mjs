const tickMs = 5
/** Kept for as long as any acquire may take. */
const kept = 4_000

/**
 * Tells a late answer from a busy core: measures how late this thread's timers are, and takes from an answer's delay
 * what the event loop was late by at that time.
 */
export class Lateness {
  /** When a tick was due, and when it came. */
  #stalls = []
  #dueAt = performance.now() + tickMs
  #outstanding = new Set()
  #onHang
  worstStallMs = 0
  worstMs = 0

  /** Hears of acquires that have not been answered, long after their deadline. */
  constructor(onHang) {
    this.#onHang = onHang
    setInterval(() => this.#tick(), tickMs).unref()
  }

  /** An acquire begins. What is returned is called with its answer, and says how late that is beyond the stalls. */
  begin(timeoutMs) {
    const one = { deadlineAt: performance.now() + timeoutMs, timeoutMs, isReported: false }
    this.#outstanding.add(one)
    return () => {
      this.#outstanding.delete(one)
      const late = this.#lateBy(one.deadlineAt)
      this.worstMs = Math.max(this.worstMs, late)
      return late
    }
  }

  #lateBy(deadlineAt) {
    const now = performance.now()
    if (now <= deadlineAt) return 0
    let stalled = Math.max(0, now - Math.max(this.#dueAt, deadlineAt))
    for (const { dueAt, cameAt } of this.#stalls) {
      stalled += Math.max(0, cameAt - Math.max(dueAt, deadlineAt))
    }
    return now - deadlineAt - stalled
  }

  #tick() {
    const now = performance.now()
    if (now > this.#dueAt) {
      this.#stalls.push({ dueAt: this.#dueAt, cameAt: now })
      if (this.#stalls.length > kept) this.#stalls.shift()
      this.worstStallMs = Math.max(this.worstStallMs, now - this.#dueAt)
    }
    this.#dueAt = now + tickMs
    for (const one of this.#outstanding) {
      if (one.isReported || now < one.deadlineAt + 1_000 || this.#lateBy(one.deadlineAt) < 1_000) continue
      one.isReported = true
      this.#onHang(one.timeoutMs)
    }
  }
}
