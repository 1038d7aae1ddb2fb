import type { Identity } from '../../../src/driver.ts'
import type { Permit, Permits, PermitUser } from '../../../src/permits.ts'

/** A minimal pool for tests in one thread: opens and closes as the test says, and keeps to the contract of permits. */
export class TestPool implements PermitUser {
  readonly min: number
  readonly max: number
  readonly permits: Permits
  readonly now: () => number
  waiters: number[] = []
  openings: Permit[] = []
  leased: Permit[] = []
  idles: { permit: Permit; since: number }[] = []
  closings: Permit[] = []
  readonly openedAt = new Map<Permit, number>()
  readonly reaped: Identity[] = []
  reapAnswer: (identity: Identity) => Promise<boolean> = () => Promise.resolve(true)
  refusal: Error | undefined

  constructor(permits: Permits, now: () => number, options: { min?: number; max?: number } = {}) {
    this.permits = permits
    this.now = now
    this.min = options.min ?? 0
    this.max = options.max ?? 10
  }

  get waiting(): number {
    return this.waiters.length
  }
  get oldestWaiterAt(): number | undefined {
    return this.waiters[0]
  }
  get opening(): number {
    return this.openings.length
  }
  get living(): number {
    return this.leased.length + this.idles.length
  }
  get idle(): number {
    return this.idles.length
  }
  get oldestIdleAt(): number | undefined {
    return this.idles[0]?.since
  }
  get size(): number {
    return this.openings.length + this.leased.length + this.idles.length + this.closings.length
  }
  get lacking(): number {
    if (this.refusal) return 0
    const wanted = Math.max(this.waiters.length - this.openings.length, this.min - this.living - this.openings.length)
    return Math.max(0, Math.min(wanted, this.max - this.size))
  }
  open(permit: Permit): void {
    this.openings.push(permit)
  }
  hasIdle(which: (permit: Permit) => boolean): boolean {
    return this.idles.some(({ permit }) => which(permit))
  }
  retireIdle(which: (permit: Permit) => boolean = () => true): boolean {
    const i = this.idles.findIndex(({ permit }) => which(permit))
    const [idle] = i < 0 ? [] : this.idles.splice(i, 1)
    if (idle) this.#close(idle.permit)
    return idle !== undefined
  }
  settled(): void {}
  refuse(error: Error): void {
    this.refusal = error
    this.waiters = []
    while (this.retireIdle()) {
      // All of them.
    }
  }
  reap(identity: Identity): Promise<boolean> {
    this.reaped.push(identity)
    return this.reapAnswer(identity)
  }

  // ── What happens to it ─────────────────────────────────────────────────────────────────────────────────────────

  acquire(): void {
    const idle = this.idles.pop()
    if (idle) this.leased.push(idle.permit)
    else this.waiters.push(this.now())
    this.#after()
  }
  abort(): void {
    this.waiters.shift()
    this.#after()
  }
  openDone(pid = 1): void {
    const permit = this.openings.shift()!
    this.permits.opened(permit, { pid, secret: 7, tag: permit.tag })
    this.openedAt.set(permit, this.now())
    this.#place(permit)
    this.#after()
  }
  openFailed(): void {
    this.permits.give(this.openings.shift()!)
    this.#after()
  }
  release(): void {
    const permit = this.leased.shift()!
    if (!this.permits.lull.lasts && this.permits.yields(permit, this.openedAt.get(permit)!)) this.#close(permit)
    else this.#place(permit)
    if (!this.permits.lull.known) this.#after()
  }
  closeDone(): void {
    this.permits.give(this.closings.shift()!)
    this.#after()
  }
  destroy(): void {
    this.#close(this.leased.shift()!)
    this.#after()
  }

  #place(permit: Permit): void {
    if (this.waiters.shift() === undefined) this.idles.push({ permit, since: this.now() })
    else this.leased.push(permit)
  }
  #close(permit: Permit): void {
    this.permits.closing(permit)
    this.closings.push(permit)
  }
  #after(): void {
    if (this.permits.unsettled || this.lacking > 0) this.permits.settle()
  }
}
