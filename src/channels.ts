import { channel } from 'node:diagnostics_channel'
import type { Channel } from 'node:diagnostics_channel'

/** The channels of these events, by name. */
export function channelsOf<K extends string>(...names: readonly K[]): Readonly<Record<K, Channel>> {
  return Object.fromEntries(names.map((name) => [name, channel(name)])) as Record<K, Channel>
}
