import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { onTestFinished } from 'vitest'
import type { BrokerEvent } from '../../src/broker/events.ts'
import type { PoolEvent } from '../../src/watch.ts'

type Event = PoolEvent | BrokerEvent

/** All events of these kinds, from now until the end of the test. */
export function hear<K extends Event['type']>(...types: K[]): Extract<Event, { type: K }>[] {
  const heard: Extract<Event, { type: K }>[] = []
  const listener = (event: unknown): void => void heard.push(event as Extract<Event, { type: K }>)
  for (const type of types) {
    subscribe(type, listener)
    onTestFinished(() => void unsubscribe(type, listener))
  }
  return heard
}
