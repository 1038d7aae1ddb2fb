import type { Channel } from 'node:diagnostics_channel'
import { channelsOf } from '../channels.ts'

/** What happens to the threads of a service's servers, each on its channel of `node:diagnostics_channel`. */
export interface ServerEvents {
  /** A thread has begun; it is not ready yet. */
  'millpond:server-start': { threadId: number }
  /** The `start` of its module has resolved. */
  'millpond:server-ready': { threadId: number; durationMs: number }
  /** A thread has ended; `expected` if it was told to. */
  'millpond:server-exit': { threadId: number; expected: boolean; livedMs: number; cause: unknown }
  /** Another thread is to take the place of one that has ended. */
  'millpond:server-restart': { pauseMs: number; restarts: number }
  /** It ended too often within a minute, and is not started again. `Service.ready()` is false from now on. */
  'millpond:server-failed': { restarts: number; cause: unknown }
  /** A new thread has taken the place of the old one, since `Service.reload()` was called. */
  'millpond:server-reload': { threadId: number; from: number | undefined }
}

/** An event as its channel gets it. */
export type ServerEvent = {
  [K in keyof ServerEvents]: { readonly type: K; readonly server: string; readonly index: number } & Readonly<
    ServerEvents[K]
  >
}[keyof ServerEvents]

const channels: { readonly [K in keyof ServerEvents]: Channel } = channelsOf(
  'millpond:server-start',
  'millpond:server-ready',
  'millpond:server-exit',
  'millpond:server-restart',
  'millpond:server-failed',
  'millpond:server-reload',
)

/** Their names. */
export const serverEvents: readonly string[] = Object.keys(channels)

/** Whose thread it is. */
interface Whose {
  readonly service: string
  readonly name: string
  readonly index: number
}

/** Of which service an event is: two of one process may have servers of the same name. */
const services = new WeakMap<object, string>()

export function tell<K extends keyof ServerEvents>(
  { service, name, index }: Whose,
  type: K,
  what: ServerEvents[K],
): void {
  const to = channels[type]
  if (!to.hasSubscribers) return
  const event = { type, server: name, index, ...what }
  services.set(event, service)
  to.publish(event)
}

/** The service whose server an event is about. */
export function serviceOf(event: object): string | undefined {
  return services.get(event)
}
