import { lookAgainAfter } from '../../src/broker/allocation.ts'
import { at, state, stateOf } from '../../src/broker/layout.ts'
import type { Ledger } from '../../src/broker/layout.ts'
import { close, lifeOf, live, status } from '../../src/broker/ledger.ts'
import { run } from '../../src/broker/look.ts'
import { SlotPermit } from '../../src/broker/permit.ts'
import { PoolHost } from '../../src/broker/pool-host.ts'
import { registers } from '../../src/broker/registers.ts'
import type { Registers } from '../../src/broker/registers.ts'
import { isOutdated } from '../../src/broker/release.ts'
import { phases } from '../../src/broker/settle.ts'
import type { Timer } from '../../src/clock.ts'
import type { Identity } from '../../src/driver.ts'
import { Lull } from '../../src/lull.ts'
import type { Permit, Permits, PermitUser } from '../../src/permits.ts'
import type { VirtualTime } from './virtual-time.ts'

const wakeMs = 0.03

/**
 * A member in virtual time: what `src/broker/member.ts` is, without enrolling, dying and reaping. The ledger, the
 * phases, what they see of the pool, and the measuring of a move are those of the library; the ticks are as there.
 */
export class Seat implements Permits {
  /** Never known: each release asks. */
  readonly lull: Lull = new Lull()
  readonly #ledger: Ledger
  readonly #time: VirtualTime
  readonly #r: Registers
  #host!: PoolHost
  #user!: PermitUser
  #timer: { readonly timer: Timer; readonly at: number } | undefined
  #woken = false

  constructor(ledger: Ledger, row: number, time: VirtualTime) {
    this.#ledger = ledger
    this.#time = time
    this.#r = registers(row, ledger.rows)
  }

  enrol(user: PermitUser): void {
    const ledger = this.#ledger
    const { me } = this.#r
    this.#user = user
    this.#host = new PoolHost({ name: 'simulated', ledger, row: me, user, clock: this.#time, reap: () => {} })
    live(ledger, me, lifeOf(ledger, me), status.enrolling)
    Atomics.store(ledger.words, at(ledger, me, 'min'), user.min)
    live(ledger, me, lifeOf(ledger, me), status.alive)
  }

  get unsettled(): boolean {
    return this.#timer !== undefined || isOutdated(this.#r, this.#host)
  }

  settle(): void {
    this.#r.at = 'start'
    run(this.#r, this.#ledger, this.#host, phases)
    this.#tick()
  }

  yields(permit: Permit, openedAt: number): boolean {
    if (!(permit instanceof SlotPermit)) return false
    this.#host.releases(permit, openedAt)
    this.#r.at = 'release'
    run(this.#r, this.#ledger, this.#host, phases)
    permit.forOthers = this.#r.yields
    return this.#r.yields
  }

  opened(permit: Permit, identity: Identity): void {
    if (permit instanceof SlotPermit) this.#host.opened(permit, identity)
  }

  closing(permit: Permit): void {
    if (!(permit instanceof SlotPermit)) return
    const word = close(this.#ledger, permit.slot, permit.word)
    if (word === undefined) throw new Error('a permit closes that somebody else has')
    permit.word = word
    permit.since = this.#time.now()
    permit.forOthers ||= this.#host.retiring
  }

  give(permit: Permit): void {
    if (!(permit instanceof SlotPermit)) return
    if (stateOf(permit.word) === state.closing) this.#host.moveCost.closed(this.#time.now() - permit.since)
    this.#r.hand.push({ slot: permit.slot, word: permit.word, used: true, forOthers: permit.forOthers })
  }

  leave(): void {}

  /** Hears of a wake, some time after it was sent. To be called after each event, whoever's it was. */
  listen(): void {
    const { words } = this.#ledger
    if (this.#woken || Atomics.load(words, at(this.#ledger, this.#r.me, 'wake')) === this.#r.wake) return
    this.#woken = true
    this.#time.setTimer(() => {
      this.#woken = false
      this.#act()
    }, wakeMs)
  }

  #act(): void {
    this.settle()
    this.#user.settled()
  }

  #tick(): void {
    if (this.#host.lacking === 0) {
      this.#timer?.timer.cancel()
      this.#timer = undefined
      return
    }
    const due = this.#time.now() + lookAgainAfter(this.#r.view, this.#r.me, this.#host.move())
    if (this.#timer && this.#timer.at <= due) return
    this.#timer?.timer.cancel()
    const fire = (): void => {
      this.#timer = undefined
      this.#r.unsettled = true
      this.#act()
    }
    this.#timer = { timer: this.#time.setTimer(fire, due - this.#time.now()), at: due }
  }
}
