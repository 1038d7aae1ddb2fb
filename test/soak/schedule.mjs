import { Random } from './random.mjs'

/** Where a thread is started: by the main thread, by a thread that knows nothing of millpond, or by another member. */
export const seats = ['main', 'main', 'main', 'main', 'main', 'nest', 'nest', 'member 0']

/** All ways in which a thread with a pool can end. */
export const deaths = ['terminate', 'throw', 'rejection', 'exit', 'out of memory', 'endless loop', 'Atomics.wait']

/** Beside them: the thread in which two members' threads were started, and backends without their threads. */
const faults = [...deaths, 'nest', 'backends', 'backends']

const everyMs = 300
const resizeEveryMs = 1_700

/**
 * What is done to the threads, and when. A function of the seed: each kind of fault happens once before any happens
 * twice.
 */
export function schedule({ seed, seconds, limit, resizable }) {
  const random = new Random(seed)
  const events = []
  const endsAt = seconds * 1_000 - everyMs / 2
  let deck = []
  for (let at = everyMs; at < endsAt; at += everyMs) {
    if (deck.length === 0) deck = random.shuffled(faults)
    // Who is chosen may just be dead: then it is the next one's turn.
    events.push({ at, kind: deck.pop(), victim: random.from(0, seats.length - 1), ms: random.from(20, 250) })
  }
  for (let at = resizeEveryMs; resizable && at < endsAt; at += resizeEveryMs) {
    events.push({ at, kind: 'resize', limit: random.from(Math.max(3, limit - 4), limit + 4) })
  }
  return events.toSorted((one, other) => one.at - other.at)
}
