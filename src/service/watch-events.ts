import { brokerEvents } from '../broker/events.ts'
import type { BrokerEvent } from '../broker/events.ts'
import { optionTypeError } from '../errors.ts'
import { shown } from '../options.ts'
import { poolEvents } from '../watch.ts'
import type { PoolEvent } from '../watch.ts'
import { canCross } from './clone.ts'
import { serverEvents } from './server-events.ts'
import type { ServerEvent } from './server-events.ts'
import { fromWire, toWire } from './wire.ts'
import type { Wire } from './wire.ts'

/** Where an event happened. */
export interface EventThread {
  readonly threadId: number
  readonly role: 'main' | 'server' | 'tasks'
  /** Of the server, or of the module of tasks. */
  readonly name?: string
  /** Of a server's thread. */
  readonly index?: number
}

/** Events of a thread that were not brought to the main one, since that did not take them as fast as they came. */
export interface DroppedEvent {
  readonly type: 'millpond:dropped'
  readonly count: number
}

/** An event of any thread of a service, with the thread. */
export type ServiceEvent = (PoolEvent | BrokerEvent | ServerEvent | DroppedEvent) & { readonly thread: EventThread }

/** Events as plain data: what was thrown is written out. */
export interface EventParcel {
  readonly fields: Readonly<Record<string, unknown>>
  readonly thrown: Readonly<Record<string, Wire>>
}

/** Those of every lease and every query: they cost something, and have to be asked for by name. */
export const frequentEvents: readonly string[] = ['millpond:acquire', 'millpond:release', 'millpond:query']

/** Those that tell of what is rare enough to be heard by whoever asks for events at all. */
export const defaultEvents: readonly string[] = [...poolEvents, ...brokerEvents, ...serverEvents].filter(
  (name) => !frequentEvents.includes(name),
)

const optionNames = ['types']
const knownEvents: readonly string[] = [...defaultEvents, ...frequentEvents, 'millpond:dropped']

/** Checks what `Service.on()` is given. */
export function checkListening(event: unknown, listener: unknown, options: unknown): void {
  if (event !== 'event') throw optionTypeError('event', `on() knows one event only, 'event': got ${shown(event)}.`)
  if (typeof listener !== 'function') {
    throw optionTypeError('listener', `The listener of on('event') must be a function: got ${shown(listener)}.`)
  }
  if (typeof options !== 'object' || options === null) {
    throw optionTypeError('options', `on() takes its options as an object, as in { types: [] }: got ${shown(options)}.`)
  }
  const unknown = Object.keys(options).find((key) => !optionNames.includes(key))
  if (unknown !== undefined) {
    throw optionTypeError(unknown, `Unknown option "${unknown}" of on(): allowed are ${optionNames.join(', ')}.`)
  }
  const { types } = options as { types?: unknown }
  if (types === undefined) return
  if (!Array.isArray(types)) throw optionTypeError('types', `types must be an array of events: got ${shown(types)}.`)
  const wrong = (types as unknown[]).findIndex((type) => !knownEvents.includes(type as string))
  if (wrong < 0) return
  throw optionTypeError('types', `Unknown event ${shown(types[wrong])}: there are ${knownEvents.join(', ')}.`)
}

export function packEvent(event: object): EventParcel {
  const fields: Record<string, unknown> = {}
  const thrown: Record<string, Wire> = {}
  for (const [key, value] of Object.entries(event)) {
    if (value instanceof Error || !canCross(value)) thrown[key] = toWire(value)
    else fields[key] = value
  }
  return { fields, thrown }
}

export function unpackEvent({ fields, thrown }: EventParcel): Record<string, unknown> {
  const event: Record<string, unknown> = { ...fields }
  for (const [key, wire] of Object.entries(thrown)) event[key] = fromWire(wire)
  return event
}
