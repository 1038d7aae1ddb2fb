import type { Channel } from 'node:diagnostics_channel'
import { debuglog } from 'node:util'
import { channelsOf } from './channels.ts'
import { messageOf } from './errors.ts'

/**
 * What happens in this thread's pools. Each event goes to its channel of `node:diagnostics_channel`, to the option
 * `log`, and with `NODE_DEBUG=millpond` to standard error; nothing is made up for nobody. Failures that no caller
 * waits for are told here and nowhere else.
 *
 * `connection` is the tag that the server shows; times are milliseconds.
 */
export interface Events {
  /** A connection is open. */
  'millpond:open': { connection: string; durationMs: number }
  /** An attempt to connect failed. */
  'millpond:connect-error': { cause: unknown }
  /** A lease begins … */
  'millpond:acquire': { connection: string; waitedMs: number }
  /** … and ends. */
  'millpond:release': { connection: string; heldMs: number }
  /** A session was cleaned between two leases … */
  'millpond:reset': { connection: string; durationMs: number }
  /** … or could not be. */
  'millpond:reset-error': { connection: string; cause: unknown }
  /** A connection begins to close. */
  'millpond:close': { connection: string; reason: string; cause: unknown }
  /** The end of a connection was not seen: it counts until it has been reaped. */
  'millpond:doubtful': { connection: string; cause: unknown }
  /** All connections of this moment are to be replaced. */
  'millpond:evict': { connections: number }
  /** An acquire met its deadline. */
  'millpond:timeout': { phase: string; waitedMs: number }
  /** A lease is held longer than `leakAfterMs`. */
  'millpond:leak': { connection: string; heldMs: number; acquiredAt: string | undefined }
  /** A hook threw where nobody waits for it. */
  'millpond:hook-error': { hook: string; cause: unknown }
  /**
   * A query of PostgreSQL has ended, its answer complete: `durationMs` after it was run, `waitedMs` of that for a
   * connection and for its turn there. `code` is that of the error it was rejected with, `text` its statement, with the
   * option `queryText`. One that was never sent has no `connection`. What the pool sends by itself is not told.
   */
  'millpond:query': {
    connection: string | undefined
    durationMs: number
    waitedMs: number
    rows: number | undefined
    command: string | undefined
    code: string | undefined
    text?: string | undefined
  }
  /** A connection listens on `channels` channels. Nobody has listened for `gapMs`; 0 at the first time. */
  'millpond:listen': { connection: string; channels: number; gapMs: number }
  /** The connection that listens is of no use any more … */
  'millpond:listen-lost': { connection: string; cause: unknown }
  /** … and an attempt to listen again failed. */
  'millpond:listen-error': { cause: unknown }
  /** A listener threw. */
  'millpond:listener-error': { channel: string; cause: unknown }
}

/** An event as `log` gets it, and as its channel does. */
export type PoolEvent = {
  [K in keyof Events]: { readonly type: K; readonly pool: string } & Readonly<Events[K]>
}[keyof Events]

const channels: { readonly [K in keyof Events]: Channel } = channelsOf(
  'millpond:open',
  'millpond:connect-error',
  'millpond:acquire',
  'millpond:release',
  'millpond:reset',
  'millpond:reset-error',
  'millpond:close',
  'millpond:doubtful',
  'millpond:evict',
  'millpond:timeout',
  'millpond:leak',
  'millpond:hook-error',
  'millpond:query',
  'millpond:listen',
  'millpond:listen-lost',
  'millpond:listen-error',
  'millpond:listener-error',
)

/** Their names. */
export const poolEvents: readonly string[] = Object.keys(channels)

const { 'millpond:acquire': begins, 'millpond:release': ends, 'millpond:query': queries } = channels

const debug = debuglog('millpond')
/** `NODE_DEBUG` is read once; the getter costs as much as half an acquire. */
export const debugs: boolean = debug.enabled

/** Tells whoever listens what happens in one pool. */
export class Watch {
  readonly #pool: string
  readonly #log: ((event: PoolEvent) => void) | undefined
  /** Every event has a listener. */
  readonly #all: boolean

  constructor(pool: string, log: ((event: PoolEvent) => void) | undefined) {
    this.#pool = pool
    this.#log = log
    this.#all = log !== undefined || debugs
  }

  /** Whether anybody would hear this event. */
  hears(type: keyof Events): boolean {
    return this.#all || channels[type].hasSubscribers
  }

  /** Whether anybody would hear that a lease begins or ends. */
  get hearsLeases(): boolean {
    return this.#all || begins.hasSubscribers || ends.hasSubscribers
  }

  /** Whether anybody would hear of a query. */
  get hearsQueries(): boolean {
    return this.#all || queries.hasSubscribers
  }

  /** `make` is called only if somebody listens. */
  tell<K extends keyof Events>(type: K, make: () => Events[K]): void {
    if (!this.hears(type)) return
    const event = { type, pool: this.#pool, ...make() } as unknown as PoolEvent
    if (channels[type].hasSubscribers) channels[type].publish(event)
    if (debugs) print(event)
    try {
      this.#log?.(event)
    } catch (error) {
      process.emitWarning(`The log of pool "${this.#pool}" threw: ${messageOf(error)}`, 'MillpondWarning')
    }
  }
}

/** With `NODE_DEBUG=millpond`: `pool-1: close mp1ab-0-3 reason=idle`. The second field says whose event it is. */
export function print(event: { readonly type: string }): void {
  if (!debugs) return
  const [[, type], [, whose], ...details] = Object.entries(event) as [[string, string], [string, string]]
  const words = (details as [string, unknown][])
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => {
      if (name === 'connection') return String(value)
      if (name.endsWith('Ms')) return `${name.slice(0, -2)}=${Math.round(Number(value) * 10) / 10}ms`
      return `${name}=${messageOf(value)}`
    })
  debug([`${whose}:`, type.slice('millpond:'.length), ...words].join(' '))
}
