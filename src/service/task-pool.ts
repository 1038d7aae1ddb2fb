import { LeaseRevokedError } from '../errors.ts'
import type { PostgresLease, PostgresPool } from '../postgres/index.ts'

interface Held {
  readonly acquiredAt: Error
  readonly since: number
  /** Whether it has been given back by its owner. */
  readonly over: () => boolean
  readonly revoke: () => Promise<unknown>
}

/**
 * A thread's pool, as one task sees it: what the task has acquired and not given back when it ends is taken from it. After
 * the end it is the plain pool, since a module may have kept it.
 */
export class TaskPool {
  readonly pool: PostgresPool
  readonly #task: string
  readonly #inner: PostgresPool
  readonly #held = new Set<Held>()
  readonly #warn: (message: string) => void
  #ended = false

  /** `warn` is told of what was left behind. */
  constructor(task: string, inner: PostgresPool, warn: (message: string) => void) {
    this.#task = task
    this.#warn = warn
    this.#inner = inner
    const own: Partial<Record<string | symbol, unknown>> = {
      acquire: async (...args: Parameters<PostgresPool['acquire']>) => this.#hold(inner.acquire(...args)),
      tryAcquire: () => {
        const lease = inner.tryAcquire()
        if (lease) this.#note(lease)
        return lease
      },
    }
    this.pool = new Proxy(inner, {
      get: (target, key) => {
        if (Object.hasOwn(own, key)) return own[key]
        const value: unknown = Reflect.get(target, key, target)
        if (typeof value !== 'function' || key === 'sql' || key === 'constructor') return value
        return (own[key] = value.bind(target))
      },
    })
  }

  /** The task has ended. Resolves when what it had left is on its way back. */
  end(): void {
    this.#ended = true
    for (const { acquiredAt, since, over, revoke } of this.#held) {
      if (over()) continue
      const heldMs = Math.round(performance.now() - since)
      this.#warn(
        `The task "${this.#task}" has ended without releasing a lease of "${this.#inner.name}" (held for ${heldMs} ms); it is revoked. ${acquiredAt.stack}`,
      )
      void revoke()
    }
    this.#held.clear()
  }

  async #hold(acquiring: Promise<PostgresLease>): Promise<PostgresLease> {
    if (this.#ended) return acquiring
    const acquiredAt = here()
    const lease = await acquiring
    if (!this.#ended) {
      this.#note(lease, acquiredAt)
      return lease
    }
    await lease.release()
    throw new LeaseRevokedError(this.#inner.name, 0, `the task "${this.#task}" that acquired it has ended`)
  }

  #note(lease: PostgresLease, acquiredAt: Error = here()): void {
    if (this.#ended) return
    // Those that are over are not kept for long by a task that acquires in a loop.
    if (this.#held.size >= 64) for (const held of this.#held) if (held.over()) this.#held.delete(held)
    this.#held.add({
      acquiredAt,
      since: performance.now(),
      over: () => lease.released,
      revoke: () => lease.destroy(`the task "${this.#task}" has ended`),
    })
  }
}

function here(): Error {
  return new Error('It was acquired here')
}
