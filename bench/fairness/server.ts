/** Whoever answers queries. */
export interface Server {
  /** Calls back, now or later, with what ends the lease. */
  acquire(member: number, served: Served): void
}

export type Served = (release: () => void) => void

/** What cannot be beaten: all connections are open, and serve one queue. */
export class OneQueue implements Server {
  readonly #waiting: Served[] = []
  #served = 0
  #free: number

  constructor(limit: number) {
    this.#free = limit
  }

  acquire(_: number, served: Served): void {
    if (this.#free === 0) this.#waiting.push(served)
    else {
      this.#free--
      served(this.#release)
    }
  }

  readonly #release = (): void => {
    const next = this.#waiting[this.#served]
    if (next) {
      this.#served++
      next(this.#release)
    } else {
      this.#waiting.length = 0
      this.#served = 0
      this.#free++
    }
  }
}
