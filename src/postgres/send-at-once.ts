type Later = (...values: never[]) => unknown

/** What postgres.js hands to `setImmediate` when it has something to send. */
const sending = 'nextWrite'

let send: (() => void) | undefined
let real: Later = setImmediate

/** Anything else is somebody else's: a serializer's, or `debug`'s, which postgres.js calls on its way. */
function intercepted(fn: Later, ...values: never[]): unknown {
  if (fn.name !== sending) return (real as (...all: unknown[]) => unknown)(fn, ...values)
  send = fn
  return undefined
}

/**
 * Calls `hand`, which hands a query to postgres.js, and has it sent when that has returned. Returns whether it was: false
 * where there was nothing to be caught, since it has been sent already, or will be at the end of the turn.
 *
 * postgres.js sends at the end of the turn of the event loop, in which it may still have the answers of all other
 * connections to read: until then, each server that has answered would wait. It has no option for that, so `setImmediate`
 * is another function for as long as this call lasts, in which nothing is awaited. Where the global object is frozen, or
 * postgres.js does it in another way, it is sent at the end of the turn.
 */
export function sendAtOnce(hand: () => void): boolean {
  const { setImmediate: usual } = globalThis
  if (!set(intercepted)) {
    hand()
    return false
  }
  real = usual
  send = undefined
  let now: (() => void) | undefined
  try {
    hand()
  } finally {
    set(usual)
    now = send as (() => void) | undefined
    send = undefined
    now?.()
  }
  return now !== undefined
}

function set(fn: unknown): boolean {
  try {
    globalThis.setImmediate = fn as typeof setImmediate
    return true
  } catch {
    return false
  }
}
