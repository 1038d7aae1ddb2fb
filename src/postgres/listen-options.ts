import { optionRangeError, optionTypeError } from '../errors.ts'
import { onlyKnown } from '../options.ts'

/** Nobody has listened for a while: what was sent meanwhile is lost. */
export interface ListenGap {
  readonly channel: string
  /** From the loss of the connection until the server listened again, in milliseconds. */
  readonly gapMs: number
  /** Why the connection was lost. */
  readonly cause: unknown
}

/** What `pool.listen()` takes. */
export interface ListenOptions {
  /** Gives up waiting, with `signal.reason`; later it ends the listening, as `unlisten()` does. */
  readonly signal?: AbortSignal | undefined
  /** Called when the server listens again after its connection was lost: look at what the notifications are about. */
  readonly onGap?: ((gap: ListenGap) => unknown) | undefined
  /**
   * Whether listening keeps the process alive.
   * @default false
   */
  readonly keepAlive?: boolean | undefined
}

/** Gets what is sent on a channel. */
export type OnNotification = (payload: string, channel: string) => unknown

/** The server cuts longer names of channels, and would notify nobody. */
const longestChannel = 63

/** Throws a `TypeError` or `RangeError` with `code: 'ERR_OPTION'`. */
export function checkListen(channel: unknown, fn: unknown, options: ListenOptions): void {
  if (typeof channel !== 'string' || channel === '' || channel.includes('\0')) {
    throw optionTypeError('channel', 'channel must be a string that is not empty, without a zero byte.')
  }
  const bytes = Buffer.byteLength(channel)
  if (bytes > longestChannel) {
    throw optionRangeError('channel', `channel must have at most ${longestChannel} bytes: got ${bytes}.`)
  }
  if (typeof fn !== 'function') throw optionTypeError('fn', 'fn must be a function that takes what is sent.')
  onlyKnown(options, ['signal', 'onGap', 'keepAlive'])
  const { signal, onGap, keepAlive } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw optionTypeError('signal', 'signal must be an AbortSignal.')
  }
  if (onGap !== undefined && typeof onGap !== 'function') throw optionTypeError('onGap', 'onGap must be a function.')
  if (keepAlive !== undefined && typeof keepAlive !== 'boolean') {
    throw optionTypeError('keepAlive', 'keepAlive must be true or false.')
  }
}

/** A channel as SQL: its case counts, as it does in `sql.notify()`. */
export function quoted(channel: string): string {
  return `"${channel.replaceAll('"', '""')}"`
}
