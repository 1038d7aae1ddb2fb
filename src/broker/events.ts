import type { Channel } from 'node:diagnostics_channel'
import { channelsOf } from '../channels.ts'
import { debugs, print } from '../watch.ts'

/**
 * What happens to a shared limit, each on its channel of `node:diagnostics_channel` and with `NODE_DEBUG=millpond` on
 * standard error. Channels are those of a thread: an event is heard in the one that it happens in.
 */
export interface BrokerEvents {
  /** A pool of this thread shares the limit from now on … */
  'millpond:join': { members: number }
  /** … and no more. */
  'millpond:leave': { members: number }
  /** A thread has ended that had a pool; heard where the broker was made. What it held is reaped by the others. */
  'millpond:lost': { threadId: number; members: number }
  /** A pool of this thread has handed a permit to one of another thread. */
  'millpond:move': { from: number; to: number }
  /** A pool of this thread has tried to end a session that a dead thread left behind. */
  'millpond:reap': { connection: string; ended: boolean; durationMs: number }
  /** The server has no room for another connection; heard where that was found out. */
  'millpond:full': { retryMs: number }
  /** The limit was changed. */
  'millpond:limit': { limit: number; before: number }
}

/** An event as its channel gets it. */
export type BrokerEvent = {
  [K in keyof BrokerEvents]: { readonly type: K; readonly broker: string } & Readonly<BrokerEvents[K]>
}[keyof BrokerEvents]

const channels: { readonly [K in keyof BrokerEvents]: Channel } = channelsOf(
  'millpond:join',
  'millpond:leave',
  'millpond:lost',
  'millpond:move',
  'millpond:reap',
  'millpond:full',
  'millpond:limit',
)

/** Their names. */
export const brokerEvents: readonly string[] = Object.keys(channels)

/** `make` is called only if somebody listens. */
export function tell<K extends keyof BrokerEvents>(broker: string, type: K, make: () => BrokerEvents[K]): void {
  const to = channels[type]
  if (!to.hasSubscribers && !debugs) return
  const event = { type, broker, ...make() }
  if (to.hasSubscribers) to.publish(event)
  print(event)
}
