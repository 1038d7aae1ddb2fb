// The words of the ledger: one Int32Array over a SharedArrayBuffer that every thread sees. Nothing else knows an index.
//
//   header   24 words: what belongs to all
//   slots    3 words each, one slot per permit
//   rows     16 words each, one row per member
//
// The word of a slot says whose the permit is and what it is doing. It is only ever written by compare-and-swap, so a
// thread may die at any instruction and the word still says who has it:
//
//   bits 0–2    state
//   bits 3–12   member: the number of a row, 0 where the state names nobody
//   bits 13–31  generation: counts the lives of the permit, so that each connection has a tag of its own
//
// A generation wraps after 524,288 lives of one slot. Two things lean on its being new:
//   - a compare-and-swap with a word read earlier: it could be fooled only by a thread that stalls, between reading and
//     swapping, for exactly a whole cycle of that slot (hours of constant moving);
//   - the tag of a session: the next generation begins only on evidence that the server has let the last one go, so no
//     two sessions with the same tag can exist at a time.
//
// Times are tenths of a millisecond of the process's monotonic clock, modulo 2 ** 32. Only differences are ever looked
// at; `elapsed` says what a wrapped one means.

export const magic = 0x6d706e64
export const version = 1

const headerWords = 24
const slotWords = 3
const rowWords = 16

/** Indices of the header. */
export const header = {
  magic: 0,
  version: 1,
  /** How many permits there are: those of the slots below it. What lies beyond serves nobody once it is free. */
  limit: 2,
  /** Slots that there is room for. */
  slots: 3,
  /** Rows that there is room for. */
  rows: 4,
  /** 0 open, 1 closed. */
  phase: 5,
  /** Only grows: one more each time that somebody begins to want more than before. */
  asks: 6,
  /** Until when nobody connects, since the server has no room; see `gate.ts`. */
  gate: 7,
  /** What a move costs, in tenths of a millisecond; an average that all members write. */
  moveCost: 8,
  /** Two words that tell this ledger from all others. */
  nonce: 9,
  /** The thread that confirms members and notices deaths. */
  thread: 11,
  /** Rows ever taken: those beyond need not be looked at. */
  rowsUsed: 12,
  /** Permits handed from one member to another. */
  moves: 13,
  /** The highest limit ever: slots beyond need not be looked at. */
  slotsUsed: 14,
  /** The rest of what `gate.ts` keeps. */
  gateDelay: 15,
  refusals: 16,
  refusedAt: 17,
  /** Who reaps with a connection beside the limit; see `bare-turn.ts`. */
  bareReaper: 18,
} as const

/** What is in a row, as an offset. All but `life` and `wake` are written by its owner only, and are hints. */
export const field = {
  /** Epoch and status; see `ledger.ts`. */
  life: 0,
  thread: 1,
  /** Counts wakes; its owner sleeps on it. */
  wake: 2,
  /** Permits that it would open with now. */
  want: 3,
  /** When the oldest of those who want was queued; means nothing while `want` is 0. */
  since: 4,
  /** Idle connections. May be too high, never 0 while there is one. */
  idle: 5,
  /** Since when the oldest of them idles; may be too early. */
  idleSince: 6,
  /** Openings under way. */
  opening: 7,
  min: 8,
  received: 9,
  given: 10,
  /** The last wake that it has heard; and since when there is one that it has not, as others saw it. */
  heard: 11,
  unheardSince: 12,
  /** Until when it may reap with a connection beside the limit, if it does. */
  bareUntil: 13,
} as const

export type Field = keyof typeof field

/** A permit is … */
export const state = {
  /** nobody's; */
  free: 0,
  /** on its way to a member, without a connection; */
  granted: 1,
  /** a member's, with a connection or about to get one; */
  held: 2,
  /** a member's, whose connection is closing; */
  closing: 3,
  /** nobody's, and there may be a connection on the server that a lost member left behind; */
  limbo: 4,
  /** as limbo, and a member is ending that connection. */
  reaping: 5,
} as const

/** More cannot be told apart in a slot's word. */
export const maxRows = 1024
export const maxSlots = 65_536

/** The shared words, and the sizes that never change. */
export interface Ledger {
  readonly words: Int32Array
  /** Slots that there is room for. */
  readonly room: number
  /** Rows that there is room for. */
  readonly rows: number
  /** Where the rows begin. */
  readonly firstRow: number
}

/** How many bytes a ledger takes. */
export function sizeOf(slots: number, rows: number): number {
  return (headerWords + slots * slotWords + rows * rowWords) * Int32Array.BYTES_PER_ELEMENT
}

/** Makes the ledger's memory; all slots are free, all rows vacant. */
export function format(options: {
  readonly limit: number
  /** The highest that the limit can ever be. Default: the limit */
  readonly room?: number
  readonly rows: number
  readonly thread: number
  readonly nonce: readonly [number, number]
  readonly moveCost: number
}): SharedArrayBuffer {
  const room = options.room ?? options.limit
  const buffer = new SharedArrayBuffer(sizeOf(room, options.rows))
  const words = new Int32Array(buffer)
  words[header.magic] = magic
  words[header.version] = version
  words[header.limit] = options.limit
  words[header.slotsUsed] = options.limit
  words[header.slots] = room
  words[header.rows] = options.rows
  words[header.thread] = options.thread
  words[header.nonce] = options.nonce[0]
  words[header.nonce + 1] = options.nonce[1]
  words[header.moveCost] = options.moveCost
  return buffer
}

/** Looks at memory as a ledger; undefined if it is none that this version understands. */
export function read(buffer: unknown): Ledger | undefined {
  if (!isShared(buffer) || buffer.byteLength < headerWords * 4) return undefined
  const words = new Int32Array(buffer)
  if (words[header.magic] !== magic || words[header.version] !== version) return undefined
  const room = words[header.slots] ?? 0
  const rows = words[header.rows] ?? 0
  if (buffer.byteLength !== sizeOf(room, rows)) return undefined
  return { words, room, rows, firstRow: headerWords + room * slotWords }
}

/** Also where the thread runs in a context of `node:vm`, whose SharedArrayBuffer is another one. */
function isShared(value: unknown): value is SharedArrayBuffer {
  return Object.prototype.toString.call(value) === '[object SharedArrayBuffer]'
}

/** How many permits there are now. */
export function limitOf(ledger: Ledger): number {
  return Atomics.load(ledger.words, header.limit)
}

/** The index of a slot's word. */
export function wordOf(slot: number): number {
  return headerWords + slot * slotWords
}

/** The index of the server's number for the session of a slot. */
export function pidOf(slot: number): number {
  return headerWords + slot * slotWords + 1
}

/** The index of that session's secret. */
export function secretOf(slot: number): number {
  return headerWords + slot * slotWords + 2
}

/** The index of a word of a row. */
export function at(ledger: Ledger, row: number, name: Field): number {
  return ledger.firstRow + row * rowWords + field[name]
}

export function pack(stateNumber: number, member: number, generation: number): number {
  return (generation << 13) | (member << 3) | stateNumber
}

export function stateOf(word: number): number {
  return word & 7
}

export function memberOf(word: number): number {
  return (word >>> 3) & 1023
}

export function generationOf(word: number): number {
  return word >>> 13
}

/** The name of the session that is opened with a permit. Any thread can tell it from the slot's word. */
export function tagOf(ledger: Ledger, slot: number, word: number): string {
  const [low, high] = [ledger.words[header.nonce] ?? 0, ledger.words[header.nonce + 1] ?? 0]
  const nonce = (low >>> 0) + (high & 0xffff) * 2 ** 32
  return `mp${nonce.toString(36)}-${slot.toString(36)}-${generationOf(word).toString(36)}`
}

/** Milliseconds as the ledger keeps them. */
export function tenths(ms: number): number {
  return (Math.round(ms * 10) % 2 ** 32) | 0
}

// Threads read the clock at slightly different times, so a little less than 0 is 0.
const skew = 600_000

/**
 * Milliseconds from one time of the ledger to a later one. Right up to five days; what is older looks younger than it
 * is, which delays what depends on it once and does no other harm.
 */
export function elapsed(from: number, to: number): number {
  const difference = (to - from) | 0
  return difference >= 0 ? difference / 10 : difference > -skew ? 0 : (difference + 2 ** 32) / 10
}
