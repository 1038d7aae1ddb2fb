import { MessageChannel, getEnvironmentData, postMessageToThread, threadId } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { BrokerError } from '../errors.ts'
import { at, elapsed, header, limitOf, read } from './layout.ts'
import type { Field, Ledger } from './layout.ts'
import { live, lifeOf, nextLife, status, statusOf } from './ledger.ts'

/** Where the ledger of a broker is found, in every thread that was started after it was published. */
export function environmentKey(name: string): string {
  return `millpond:${name}`
}

/** What a member sends to the broker's thread. The end of the port tells of the end of the member. */
export interface Enrolment {
  readonly millpond: 'enrol'
  readonly nonce: readonly [number, number]
  readonly row: number
  /** The row's life while its owner waits to be confirmed. */
  readonly life: number
  readonly port: MessagePort
}

/** A row that has been claimed. It takes part once it is alive. */
export interface Seat {
  readonly ledger: Ledger
  readonly row: number
  /** The row's life once it is alive. */
  readonly life: number
}

export function isClosed(ledger: Ledger): boolean {
  return Atomics.load(ledger.words, header.phase) !== 0
}

export function closedError(name: string): BrokerError {
  return new BrokerError('ERR_BROKER_CLOSED', `Cannot use the broker "${name}": it was closed.`)
}

/** The ledger of a broker. Throws a `BrokerError` if there is none that could be joined. */
export function findLedger(name: string): Ledger {
  const buffer: unknown = getEnvironmentData(environmentKey(name))
  // What was deleted comes back as undefined or null, depending on the thread.
  if (buffer === undefined || buffer === null) {
    throw new BrokerError(
      'ERR_NO_BROKER',
      `Cannot join the broker "${name}": this thread knows of none. Was it created after this worker was started? ` +
        'Create it (createBroker, or a pool with `limit` in the main thread) before the workers.',
    )
  }
  const ledger = read(buffer)
  if (!ledger) {
    throw new BrokerError(
      'ERR_BROKER_MISMATCH',
      `Cannot join the broker "${name}": it was made by another version of millpond. Load the same one in all threads.`,
    )
  }
  if (isClosed(ledger)) throw closedError(name)
  return ledger
}

/** After so long an enrolment that nobody has confirmed is taken to be that of a thread that has died since. */
const forgottenMs = 10_000

/** Takes a row. Throws a `BrokerError` if none is left, or if more connections are to be kept than there may be. */
export function claimRow(ledger: Ledger, details: { name: string; min: number; now: number }): Seat {
  const { name, min, now } = details
  const seat = findRow(ledger, now)
  if (!seat) {
    throw new BrokerError(
      'ERR_BROKER_FULL',
      `Cannot join the broker "${name}": all of its ${ledger.rows} members are taken. Create it with a higher \`members\`.`,
    )
  }
  const { row } = seat
  const fields: Partial<Record<Field, number>> = { thread: threadId, min, want: 0, idle: 0, opening: 0 }
  for (const [key, value] of Object.entries({ ...fields, idleSince: 0, received: 0, given: 0, unheardSince: 0 })) {
    Atomics.store(ledger.words, at(ledger, row, key as Field), value)
  }
  // Of two who enrol at once each sees the other's: both may be refused, never both taken.
  const excess = tooMuchMin(ledger, { name, min, now })
  if (excess) {
    leaveUnconfirmed(seat)
    throw excess
  }
  return seat
}

/** Keeps another number of connections from now on. Throws a `BrokerError` if there is no room for them. */
export function changeMin({ ledger, row }: Seat, details: { name: string; min: number; now: number }): void {
  const word = at(ledger, row, 'min')
  const before = Atomics.exchange(ledger.words, word, details.min)
  const excess = details.min > before ? tooMuchMin(ledger, details) : undefined
  if (!excess) return
  Atomics.store(ledger.words, word, before)
  throw excess
}

function tooMuchMin(
  ledger: Ledger,
  { name, min, now }: { name: string; min: number; now: number },
): BrokerError | undefined {
  const sum = sumOfMin(ledger, now)
  const limit = limitOf(ledger)
  if (sum <= limit) return undefined
  return new BrokerError(
    'ERR_BROKER_MISMATCH',
    `Cannot join the broker "${name}": the connections that its members keep open (min) would add up to ${sum}, ` +
      `${min} of them this pool's, and its limit is ${limit}. Lower \`min\`, or raise the limit.`,
  )
}

function findRow(ledger: Ledger, now: number): Seat | undefined {
  for (let row = 0; row < ledger.rows; row++) {
    const life = lifeOf(ledger, row)
    const vacant = statusOf(life) === status.vacant || isForgotten(ledger, row, life, now)
    if (!vacant) continue
    // A forgotten one goes to its next epoch first, so that a late confirmation does not fit.
    if (statusOf(life) !== status.vacant && !live(ledger, row, life, status.vacant)) continue
    const from = lifeOf(ledger, row)
    // Before it is claimed: a claim must never look like an old one.
    if (statusOf(from) === status.vacant) Atomics.store(ledger.words, at(ledger, row, 'since'), now)
    if (statusOf(from) !== status.vacant || !live(ledger, row, from, status.enrolling)) continue
    showRow(ledger, row)
    return { ledger, row, life: nextLife(nextLife(from, status.enrolling), status.alive) }
  }
  return undefined
}

function isForgotten(ledger: Ledger, row: number, life: number, now: number): boolean {
  if (statusOf(life) !== status.enrolling) return false
  return elapsed(Atomics.load(ledger.words, at(ledger, row, 'since')), now) > forgottenMs
}

function showRow(ledger: Ledger, row: number): void {
  for (let used = 0; used <= row;) {
    used = Atomics.load(ledger.words, header.rowsUsed)
    if (used > row || Atomics.compareExchange(ledger.words, header.rowsUsed, used, row + 1) === used) return
    used = 0
  }
}

export function sumOfMin(ledger: Ledger, now: number): number {
  let sum = 0
  for (let row = 0; row < Atomics.load(ledger.words, header.rowsUsed); row++) {
    const life = lifeOf(ledger, row)
    const counts = statusOf(life) === status.alive || statusOf(life) === status.enrolling
    if (counts && !isForgotten(ledger, row, life, now)) sum += Atomics.load(ledger.words, at(ledger, row, 'min'))
  }
  return sum
}

/** The life of a seat's row before it is confirmed. */
function unconfirmed(seat: Seat): number {
  return nextLife(seat.life, status.enrolling)
}

/** Makes the row alive: said by the broker's thread, once it would notice the member's death. */
export function confirm(seat: Seat): boolean {
  return live(seat.ledger, seat.row, unconfirmed(seat), status.alive)
}

export function isConfirmed(seat: Seat): boolean {
  return lifeOf(seat.ledger, seat.row) === seat.life
}

/** Gives the row back; false if it has been confirmed meanwhile. */
export function leaveUnconfirmed(seat: Seat): boolean {
  return live(seat.ledger, seat.row, unconfirmed(seat), status.vacant)
}

/**
 * Hands the broker's thread one end of a channel, and returns the other. Nothing is taken before that has arrived: a
 * thread that dies earlier would never be noticed. A member in the broker's own thread dies with the broker, and needs
 * no channel.
 */
export function handOver(seat: Seat, settled: (error: unknown) => void): MessagePort | undefined {
  const { words } = seat.ledger
  const thread = words[header.thread] ?? 0
  if (thread === threadId) {
    confirm(seat)
    return undefined
  }
  const { port1, port2 } = new MessageChannel()
  port1.unref()
  const enrolment: Enrolment = {
    millpond: 'enrol',
    nonce: [words[header.nonce] ?? 0, words[header.nonce + 1] ?? 0],
    row: seat.row,
    life: unconfirmed(seat),
    port: port2,
  }
  void postMessageToThread(thread, enrolment, [port2]).then(() => settled(undefined), settled)
  return port1
}
