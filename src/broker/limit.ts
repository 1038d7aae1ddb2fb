import { isMainThread } from 'node:worker_threads'
import type { Clock } from '../clock.ts'
import { LocalPermits } from '../permits.ts'
import type { Permits, PermitUser } from '../permits.ts'
import { createBroker, hasBroker } from './broker.ts'
import type { Broker } from './broker.ts'
import { Member, joinBroker } from './member.ts'

interface Limit {
  readonly name: string
  readonly connections: number
}

/** How a pool wants to be limited. */
interface Wanted {
  readonly limit: Limit | undefined
  readonly broker: string | undefined
  readonly clock: Clock
}

/** Brokers that nobody asked for by name: pools made them, and the last one to leave takes them away again. */
const implicit = new WeakSet<Broker>()

function brokerOf({ name, connections }: Limit): Broker {
  const isNew = !hasBroker(name)
  const broker = createBroker({ name, limit: connections })
  if (isNew) implicit.add(broker)
  return broker
}

/** A member in the thread that makes the broker. */
class LimitMember extends Member {
  readonly #limit: Limit
  #broker: Broker

  constructor(limit: Limit, clock: Clock) {
    super({ name: limit.name, clock })
    this.#limit = limit
    this.#broker = brokerOf(limit)
  }

  override enrol(user: PermitUser): void {
    // Others may have come and gone since.
    this.#broker = brokerOf(this.#limit)
    super.enrol(user)
  }

  override leave(): void {
    super.leave()
    if (implicit.has(this.#broker) && this.#broker.stats().members.length === 0) void this.#broker.close()
  }
}

/**
 * The permits behind the option `limit`. The main thread makes the broker, or finds it, at once: workers that start
 * later must find it. Every other thread joins it with its first use, and never makes one of its own.
 */
export function limitPermits({ limit, clock }: { limit: Limit; clock: Clock }): Permits {
  return isMainThread ? new LimitMember(limit, clock) : joinBroker({ name: limit.name, clock })
}

/** The limit over all threads where one is asked for, else none but the pool's own `max`. */
export function permitsFor({ limit, broker, clock }: Wanted): Permits {
  if (limit) return limitPermits({ limit, clock })
  return broker === undefined ? new LocalPermits() : joinBroker({ name: broker, clock })
}
