import type { Timer } from './clock.ts'
import type { Core } from './core.ts'
import { setDeadline } from './deadline-timer.ts'
import type { ResolvedOptions } from './options.ts'
import type { Slot } from './slot.ts'
import type { Watch } from './watch.ts'

interface Details<C> {
  readonly core: Core<C>
  readonly watch: Watch
  readonly options: ResolvedOptions
  /** Something may have been decided: it is to be carried out. */
  readonly act: () => void
}

/**
 * What a pool does because time passes, and not because anybody calls: it connects again, and looks after what is idle,
 * too old, or leased for too long.
 *
 * State
 *   sweep       runs while there are slots; keeps no process alive
 *   retry       runs while connecting has failed and somebody lacks a connection; keeps the process alive while somebody waits
 *   retriedAt   the end of the backoff after which there was a look: from then on it is up to the permits, who call
 */
export class Upkeep<C> {
  readonly #details: Details<C>
  #sweep: Timer | undefined
  #retry: Timer | undefined
  #retriedAt: number | undefined
  #stopped = false

  constructor(details: Details<C>) {
    this.#details = details
  }

  /** Sets both timers as the core stands now. */
  schedule(): void {
    if (this.#stopped) return
    this.#retryLater()
    this.#sweepLater()
  }

  /** For good. */
  stop(): void {
    this.#stopped = true
    this.#sweep?.cancel()
    this.#retry?.cancel()
  }

  /** By the end of the backoff and not by the time: that may pass between the look of whoever connects and this one. */
  #retryLater(): void {
    const { core, options, act } = this.#details
    this.#retry?.cancel()
    this.#retry = undefined
    const at = core.retryAt
    if (at === undefined || at === this.#retriedAt) return
    const retry = (): void => {
      this.#retriedAt = at
      act()
    }
    this.#retry = setDeadline(options.clock, at, retry, core.waiting > 0)
  }

  #sweepLater(): void {
    const { core, options, act } = this.#details
    if (core.size === 0) {
      this.#sweep?.cancel()
      this.#sweep = undefined
      return
    }
    if (this.#sweep) return
    const { clock, idleTimeoutMs, maxLifetimeMs, leakAfterMs } = options
    const every = Math.max(10, Math.min(idleTimeoutMs, maxLifetimeMs, leakAfterMs) / 4)
    if (every === Infinity) return
    const dueAt = clock.now() + every
    const sweep = (): void => {
      this.#sweep = undefined
      const now = clock.now()
      core.sweep(now, now - dueAt > every / 2)
      for (const slot of core.leaks(now, leakAfterMs)) this.#reportLeak(slot, now)
      act()
    }
    this.#sweep = clock.setTimer(sweep, every, false)
  }

  #reportLeak(slot: Slot<C>, now: number): void {
    const { watch, options } = this.#details
    const leak = { connection: slot.permit.tag, heldMs: now - slot.leasedAt, acquiredAt: slot.trace?.stack }
    if (watch.hears('millpond:leak')) return watch.tell('millpond:leak', () => leak)
    process.emitWarning(
      `A lease of "${options.name}" (${leak.connection}) is held for ${Math.round(leak.heldMs)} ms: ${leak.acquiredAt}`,
      'MillpondWarning',
    )
  }
}
