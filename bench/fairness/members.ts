import { format, header, read } from '../../src/broker/layout.ts'
import type { Ledger } from '../../src/broker/layout.ts'
import { firstMoveMs } from '../../src/broker/move-cost.ts'
import { VirtualPool } from './pool.ts'
import { Seat } from './seat.ts'
import type { Served, Server } from './server.ts'
import type { VirtualTime } from './virtual-time.ts'

/** The pools of all members, under one limit. */
export class Members implements Server {
  readonly #ledger: Ledger
  readonly #seats: Seat[] = []
  readonly #pools: VirtualPool[] = []

  constructor(options: { members: number; limit: number; connectMs: number; time: VirtualTime }) {
    const { members, limit, connectMs, time } = options
    const buffer = format({ limit, rows: members, thread: 0, nonce: [1, 2], moveCost: firstMoveMs * 10 })
    const ledger = read(buffer)
    if (!ledger) throw new Error('a new ledger cannot be read')
    this.#ledger = ledger
    ledger.words[header.rowsUsed] = members
    for (let i = 0; i < members; i++) {
      const seat = new Seat(ledger, i, time)
      this.#seats.push(seat)
      this.#pools.push(new VirtualPool({ min: 0, max: limit, connectMs, seat, time }))
    }
  }

  acquire(member: number, served: Served): void {
    this.#pools[member]!.acquire(served)
  }

  /** Permits handed from one member to another so far. */
  get moves(): number {
    return this.#ledger.words[header.moves]!
  }

  /** Connections opened so far. */
  get opens(): number {
    return this.#pools.reduce((opens, pool) => opens + pool.opens, 0)
  }

  /** Has everybody hear of wakes. To be called after each event. */
  listen(): void {
    for (const seat of this.#seats) seat.listen()
  }
}
