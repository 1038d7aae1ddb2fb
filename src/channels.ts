import { channel } from 'node:diagnostics_channel'
import type { Channel } from 'node:diagnostics_channel'

/**
 * What happens in this thread's pools, for those who subscribe through `node:diagnostics_channel`; nothing is made
 * up for nobody. Failures that no caller waits for are told here and nowhere else.
 *
 * `pool` is the pool's name, `connection` the tag that the server shows.
 */
export interface Events {
  'millpond:open': { pool: string; connection: string; durationMs: number }
  'millpond:close': { pool: string; connection: string; reason: string; cause?: unknown }
  'millpond:connect-error': { pool: string; cause: unknown }
  'millpond:reset-error': { pool: string; connection: string; cause: unknown }
  'millpond:doubtful': { pool: string; connection: string; cause: unknown }
  'millpond:timeout': { pool: string; phase: string; waitedMs: number }
}

const channels: { readonly [K in keyof Events]: Channel } = {
  'millpond:open': channel('millpond:open'),
  'millpond:close': channel('millpond:close'),
  'millpond:connect-error': channel('millpond:connect-error'),
  'millpond:reset-error': channel('millpond:reset-error'),
  'millpond:doubtful': channel('millpond:doubtful'),
  'millpond:timeout': channel('millpond:timeout'),
}

/** Tells whoever listens. `make` is called only then. */
export function tell<K extends keyof Events>(name: K, make: () => Events[K]): void {
  if (channels[name].hasSubscribers) channels[name].publish(make())
}
