import { createBroker } from '../../src/broker/broker.ts'
import { joinBroker } from '../../src/broker/member.ts'
import type { Permit, PermitUser } from '../../src/permits.ts'

/** A pool that opens at once, and gives back at once. */
class Taker implements PermitUser {
  readonly min = 0
  waiting = 0
  readonly oldestWaiterAt = undefined
  readonly opening = 0
  readonly living = 0
  readonly idle = 0
  readonly oldestIdleAt = undefined
  permit: Permit | undefined

  get lacking(): number {
    return this.waiting
  }

  open(permit: Permit): void {
    this.waiting = 0
    this.permit = permit
  }

  hasIdle(): boolean {
    return false
  }

  retireIdle(): boolean {
    return false
  }

  settled(): void {}

  refuse(error: Error): void {
    throw error
  }

  reap(): Promise<boolean> {
    return Promise.resolve(false)
  }
}

/** One of so many members takes a permit of so many and gives it back; in ns. */
export function takeAndGive(members: number, permits: number, times: number): number {
  const broker = createBroker({ name: `taken ${Math.random()}`, limit: permits })
  const takers = Array.from({ length: members }, () => {
    const seat = joinBroker({ name: broker.name })
    const taker = new Taker()
    seat.enrol(taker)
    return { seat, taker }
  })
  const cycle = ({ seat, taker }: (typeof takers)[number]): void => {
    taker.waiting = 1
    seat.settle()
    if (!taker.permit) throw new Error('no permit could be had')
    seat.give(taker.permit)
    taker.permit = undefined
    seat.settle()
  }
  for (let i = 0; i < times; i++) cycle(takers[i % members]!)
  const startedAt = performance.now()
  for (let i = 0; i < times; i++) cycle(takers[i % members]!)
  const ns = ((performance.now() - startedAt) * 1e6) / times
  for (const { seat } of takers) seat.leave()
  void broker.close()
  return ns
}
