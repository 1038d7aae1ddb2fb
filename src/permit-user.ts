import type { Clock } from './clock.ts'
import type { Core } from './core.ts'
import type { Identity } from './driver.ts'
import type { Permit, PermitUser } from './permits.ts'

interface Shell {
  settled: () => void
  refuse: (error: Error) => void
  reap: (identity: Identity) => Promise<boolean>
}

/** A core as the permits see it. */
export class CoreUser<C> implements PermitUser {
  readonly #core: Core<C>
  readonly #clock: Clock
  readonly settled: () => void
  readonly refuse: (error: Error) => void
  readonly reap: (identity: Identity) => Promise<boolean>

  constructor(core: Core<C>, clock: Clock, { settled, refuse, reap }: Shell) {
    this.#core = core
    this.#clock = clock
    this.settled = settled
    this.refuse = refuse
    this.reap = reap
  }

  get min(): number {
    return this.#core.min
  }

  get waiting(): number {
    return this.#core.waiting + (this.#core.pressedAt === undefined ? 0 : 1)
  }

  get oldestWaiterAt(): number | undefined {
    return this.#core.oldestWaiterAt
  }

  get opening(): number {
    return this.#core.opening
  }

  get living(): number {
    return this.#core.living
  }

  get idle(): number {
    return this.#core.idle
  }

  get oldestIdleAt(): number | undefined {
    return this.#core.oldestIdleAt
  }

  get lacking(): number {
    // Asked on each release: the clock only if it matters.
    return this.#core.lackingSoon === 0 ? 0 : this.#core.lacking(this.#clock.now())
  }

  open(permit: Permit): void {
    this.#core.open(permit, this.#clock.now())
  }

  hasIdle(which: (permit: Permit) => boolean): boolean {
    return this.#core.hasIdle(which)
  }

  retireIdle(which?: (permit: Permit) => boolean): boolean {
    return this.#core.retireIdle(which)
  }
}
