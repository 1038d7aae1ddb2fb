import type { Action } from '../../src/action.ts'
import { Core } from '../../src/core.ts'
import { CoreUser } from '../../src/permit-user.ts'
import type { Slot } from '../../src/slot.ts'
import { Waiter } from '../../src/waiters.ts'
import type { Seat } from './seat.ts'
import type { Served } from './server.ts'
import type { VirtualTime } from './virtual-time.ts'

const closeMs = 1
const identity = { pid: 1, secret: 1, tag: 'mp' }

function refuse(error: unknown): void {
  throw new Error('an acquire was refused', { cause: error })
}

/** Somebody who waits for ever. */
class Client extends Waiter<Slot<true>> {
  readonly serve: (slot: Slot<true>) => void

  constructor(queuedAt: number, serve: (slot: Slot<true>) => void) {
    super(queuedAt, Infinity)
    this.serve = serve
  }

  fail(error: unknown): void {
    throw error
  }

  expire(): void {}
}

/** A pool in virtual time: the library's core, with connections that take their time to open and to close. */
export class VirtualPool {
  readonly #core: Core<true>
  readonly #seat: Seat
  readonly #time: VirtualTime
  readonly #connectMs: number
  #acting = false
  /** Connections opened. */
  opens = 0

  constructor(options: { max: number; min: number; connectMs: number; seat: Seat; time: VirtualTime }) {
    const { max, min, connectMs, seat, time } = options
    this.#seat = seat
    this.#time = time
    this.#connectMs = connectMs
    this.#core = new Core<true>(
      {
        name: 'virtual',
        min,
        max,
        maxIdle: max,
        order: 'lifo',
        maxWaiting: Infinity,
        maxLifetimeMs: Infinity,
        idleTimeoutMs: Infinity,
        maxUses: Infinity,
        pingAfterIdleMs: Infinity,
        timings: false,
      },
      seat,
    )
    seat.enrol(
      new CoreUser(this.#core, time, {
        settled: () => this.#act(false),
        refuse,
        reap: () => Promise.resolve(false),
      }),
    )
  }

  acquire(served: Served): void {
    const now = this.#time.now()
    const idle = this.#core.take(now)
    if (idle) return this.#lend(idle, served)
    this.#core.wait(new Client(now, (slot) => this.#lend(slot, served)), now)
    this.#act(true)
  }

  #lend(slot: Slot<true>, served: Served): void {
    served(() => {
      this.#core.released(slot, this.#time.now())
      if (this.#core.actions.length > 0 || this.#seat.unsettled) this.#act(true)
    })
  }

  /** As `Pool` does it: settle, carry out what was decided, settle again. */
  #act(settle: boolean): void {
    if (this.#acting) return
    this.#acting = true
    const { actions } = this.#core
    if (settle) this.#seat.settle()
    let performed = 0
    for (let action = actions[performed]; action; action = actions[performed]) {
      performed++
      this.#perform(action)
      if (performed === actions.length) this.#seat.settle()
    }
    actions.splice(0, performed)
    this.#acting = false
  }

  #perform(action: Action<true>): void {
    if (action.do === 'serve') return action.waiter.serve(action.slot)
    if (action.do === 'open') return this.#open(action.slot)
    if (action.do !== 'close') throw new Error(`nothing here needs to ${action.do}`)
    const { slot } = action
    this.#time.setTimer(() => {
      this.#core.closed(slot)
      this.#act(true)
    }, closeMs)
  }

  #open(slot: Slot<true>): void {
    this.opens++
    this.#time.setTimer(() => {
      this.#seat.opened(slot.permit, identity)
      this.#core.opened(slot, true, this.#time.now())
      this.#act(true)
    }, this.#connectMs)
  }
}
