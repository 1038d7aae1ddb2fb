import { randomInt } from 'node:crypto'
import { getEnvironmentData, setEnvironmentData, threadId } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { systemClock } from '../clock.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { BrokerError, optionTypeError } from '../errors.ts'
import { onlyKnown, whole } from '../options.ts'
import type { BrokerStats } from '../stats.ts'
import { bury } from './bury.ts'
import { closedError, confirm, environmentKey, isClosed, sumOfMin } from './enrol.ts'
import type { Enrolment } from './enrol.ts'
import { tell } from './events.ts'
import { at, format, header, limitOf, maxRows, maxSlots, read, tenths } from './layout.ts'
import type { Ledger } from './layout.ts'
import { lifeOf, nextLife, status, wakeAll } from './ledger.ts'
import { firstMoveMs } from './move-cost.ts'
import { changeLimit } from './resize.ts'
import { readStats } from './stats.ts'

export interface BrokerOptions {
  /** How pools find it: `new Pool({ broker: name })`, in any thread started after it was created. */
  name: string
  /** Connections that all pools which join it may have together, opening and closing ones included. At least 1. */
  limit: number
  /**
   * Pools that can join it at a time; a thread may have several. 1 … 1024.
   * @default 256
   */
  members?: number
}

/** One limit over the pools of all threads. */
export interface Broker extends AsyncDisposable {
  readonly name: string
  /** As it is now. */
  readonly limit: number
  /**
   * Another limit, from now on. A higher one counts at once. With a lower one idle connections beyond it close at once
   * and leased ones as they are released, so that there are never more than the higher of the two, and no more than the
   * new one once those leases have ended. `stats()` shows how far it has come.
   *
   * Throws `ERR_OPTION` for a limit that cannot be (at most 1,024, or twice the limit that it was made with if that is
   * more), `ERR_BROKER_MISMATCH` for one below what the members keep open (`min`), `ERR_BROKER_CLOSED`.
   */
  resize(limit: number): void
  /** A snapshot of all members, read from shared memory. */
  stats(): BrokerStats
  /**
   * Every acquire from now on fails with `ERR_BROKER_CLOSED`, idle connections close, leases may finish. Resolves when
   * no member has a connection any more. What dead members left behind is ended first, for up to 5 s, if a member is
   * there to do it; without one, the server may still count it for a moment.
   */
  close(): Promise<void>
}

const defaultMembers = 256
/** What a limit can be raised to, at the least. */
const leastRoom = 1_024
const closePollMs = 20
/** How long closing waits for members to end what dead ones left behind. */
const reapMs = 5_000

/** Those made by this thread, by name. */
const brokers = new Map<string, ThreadBroker>()

/**
 * Makes a broker: one limit over all pools that join it by its name, in this thread and in all that are started after
 * it by this thread or below it. Throws a `BrokerError` (`ERR_BROKER_EXISTS`) if there is one of the same name with
 * another limit; one with the same limit is returned.
 *
 * @example
 * ```ts
 * import { createBroker } from 'millpond'
 *
 * const broker = createBroker({ name: 'orders-db', limit: 20 })
 * broker.stats().free // => 20
 * await broker.close()
 * ```
 */
export function createBroker(options: BrokerOptions): Broker {
  const { name, limit, members } = checked(options)
  const known = brokers.get(name)
  if (known) {
    if (known.isClosed) throw closedError(name)
    if (known.limit === limit) return known
    throw exists(name, `it has a limit of ${known.limit}, not ${limit}`)
  }
  const published = read(getEnvironmentData(environmentKey(name)))
  if (published && !isClosed(published)) {
    throw exists(name, 'another thread made it, or another copy of millpond; join it with the option `broker`')
  }
  const broker = new ThreadBroker(name, limit, members)
  brokers.set(name, broker)
  if (brokers.size === 1) process.on('workerMessage', hear)
  return broker
}

function exists(name: string, why: string): BrokerError {
  return new BrokerError('ERR_BROKER_EXISTS', `Cannot create the broker "${name}": there is one already, and ${why}.`)
}

/** A message for this thread; only some are for us. */
function hear(message: unknown): void {
  if (!isEnrolment(message)) return
  for (const broker of brokers.values()) if (broker.enrol(message)) return
  message.port.close()
}

function isEnrolment(message: unknown): message is Enrolment {
  return typeof message === 'object' && message !== null && 'millpond' in message && message.millpond === 'enrol'
}

/**
 * The owner of a ledger, in the thread that made it. It confirms members and buries those that die; to take, give or
 * move a permit nobody needs it. Nothing of it keeps the process alive, but a `close()` that waits for leases.
 */
/** Whether this thread has made a broker of this name. */
export function hasBroker(name: string): boolean {
  return brokers.has(name)
}

class ThreadBroker implements Broker {
  readonly name: string
  readonly #ledger: Ledger
  /** Of members in other threads; when one closes, its member has died or left. */
  readonly #ports = new Set<MessagePort>()
  #closing: Deferred<void> | undefined
  #reapUntil = 0

  constructor(name: string, limit: number, members: number) {
    this.name = name
    const buffer = format({
      limit,
      room: Math.min(maxSlots, Math.max(leastRoom, 2 * limit)),
      rows: members,
      thread: threadId,
      nonce: [randomInt(2 ** 32) | 0, randomInt(2 ** 32) | 0],
      moveCost: firstMoveMs * 10,
    })
    const ledger = read(buffer)
    if (!ledger) throw new Error('bug: a new ledger cannot be read')
    this.#ledger = ledger
    setEnvironmentData(environmentKey(name), buffer)
  }

  get isClosed(): boolean {
    return this.#closing !== undefined
  }

  get limit(): number {
    return limitOf(this.#ledger)
  }

  resize(limit: number): void {
    if (this.isClosed) throw closedError(this.name)
    const to = whole('limit', limit, { from: 1, to: this.#ledger.room })
    const before = this.limit
    changeLimit(this.#ledger, to)
    // After it: of a member that enrols and a limit that falls at least one sees the other.
    const kept = sumOfMin(this.#ledger, tenths(systemClock.now()))
    if (to >= before || kept <= to) {
      tell(this.name, 'millpond:limit', () => ({ limit: to, before }))
      return
    }
    changeLimit(this.#ledger, before)
    throw new BrokerError(
      'ERR_BROKER_MISMATCH',
      `Cannot lower the limit of the broker "${this.name}" to ${to}: its members keep ${kept} connections open (min).`,
    )
  }

  stats(): BrokerStats {
    return readStats(this.#ledger, this.name, systemClock.now())
  }

  close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = deferred<void>()
      this.#reapUntil = systemClock.now() + reapMs
      Atomics.store(this.#ledger.words, header.phase, 1)
      wakeAll(this.#ledger)
      this.#closeIfEmpty()
    }
    return this.#closing.promise
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** A member says who it is. False if it is not one of ours. */
  enrol({ nonce, row, life, port }: Enrolment): boolean {
    const { words } = this.#ledger
    if (words[header.nonce] !== nonce[0] || words[header.nonce + 1] !== nonce[1]) return false
    const seat = { ledger: this.#ledger, row, life: nextLife(life, status.alive) }
    const thread = Atomics.load(words, at(this.#ledger, row, 'thread'))
    this.#ports.add(port)
    port.on('close', () => {
      this.#ports.delete(port)
      // Does nothing if the member has left in order.
      const lost = lifeOf(this.#ledger, row) === seat.life
      bury(this.#ledger, row, seat.life)
      if (lost) tell(this.name, 'millpond:lost', () => ({ threadId: thread, members: this.stats().members.length }))
    })
    port.unref()
    if (!confirm(seat)) port.close()
    return true
  }

  #closeIfEmpty(): void {
    const { held, closing, granted, limbo, members } = this.stats()
    // What dead members left behind is waited for while somebody is there to end it, and not for ever.
    const reaped = limbo === 0 || members.length === 0 || systemClock.now() > this.#reapUntil
    if (held + closing + granted > 0 || !reaped) {
      systemClock.setTimer(() => this.#closeIfEmpty(), closePollMs)
      return
    }
    // From now on the name is free for another broker.
    brokers.delete(this.name)
    if (brokers.size === 0) process.off('workerMessage', hear)
    for (const port of this.#ports) port.close()
    this.#closing?.resolve()
  }
}

const optionNames: readonly (keyof BrokerOptions)[] = ['name', 'limit', 'members']

function checked(options: BrokerOptions): Required<BrokerOptions> {
  onlyKnown(options, optionNames)
  const { name, limit, members = defaultMembers } = options
  if (typeof name !== 'string' || name === '') {
    throw optionTypeError('name', 'name must be a string that is not empty.')
  }
  return {
    name,
    limit: whole('limit', limit, { from: 1, to: maxSlots }),
    members: whole('members', members, { from: 1, to: maxRows }),
  }
}
