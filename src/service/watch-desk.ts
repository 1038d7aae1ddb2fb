import { threadId } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { messageOf } from '../errors.ts'
import type { PostgresPool } from '../postgres/index.ts'
import type { BrokerEvent } from '../broker/events.ts'
import type { PoolEvent } from '../watch.ts'
import { serviceOf } from './server-events.ts'
import type { ServerEvent } from './server-events.ts'
import { Subscriptions } from './subscriptions.ts'
import { defaultEvents, unpackEvent } from './watch-events.ts'
import type { EventThread, ServiceEvent } from './watch-events.ts'
import { createLoopWords, loopStats, watchLoop } from './watch-loop.ts'
import type { EventLoopStats } from './watch-loop.ts'
import type { FromWatched, ToWatched, WatchIntroduction } from './watch-thread.ts'

/** One thread of a service, as it is doing. */
export interface ThreadStats extends EventThread {
  readonly eventLoop: EventLoopStats
}

/** Events that were brought to the main thread, and those that were not: see `ServiceEvent`. */
export interface EventStats {
  readonly delivered: number
  readonly dropped: number
}

export type EventListener = (event: ServiceEvent) => void

/** An event of this thread. */
type OwnEvent = PoolEvent | BrokerEvent | ServerEvent

interface Watched {
  readonly thread: EventThread
  readonly loop: Int32Array
  readonly port: MessagePort
}

/** Watches all threads of a service from the main one. */
export class WatchDesk {
  readonly #service: string
  /** The service's own pool of this thread, as soon as there is one. */
  readonly #pool: () => PostgresPool | undefined
  readonly #threads = new Set<Watched>()
  readonly #listeners = new Map<EventListener, ReadonlySet<string>>()
  readonly #loop = createLoopWords()
  readonly #here: EventThread = { threadId, role: 'main' }
  #endLoop: (() => void) | undefined
  #closed = false
  #broker: string | undefined
  #delivered = 0
  #dropped = 0

  constructor(service: string, pool: () => PostgresPool | undefined) {
    this.#service = service
    this.#pool = pool
  }

  /** Before the first thread starts. */
  open(): void {
    this.#endLoop = watchLoop(this.#loop)
    process.on('workerMessage', this.#onMessage)
  }

  close(): void {
    this.#closed = true
    this.#endLoop?.()
    process.off('workerMessage', this.#onMessage)
    this.#listeners.clear()
    this.#own.want([])
  }

  threads(): readonly ThreadStats[] {
    const all = [statsOf(this.#here, this.#loop)]
    for (const { thread, loop } of this.#threads) all.push(statsOf(thread, loop))
    return all
  }

  events(): EventStats {
    return { delivered: this.#delivered, dropped: this.#dropped }
  }

  /** Does nothing once it is closed: nothing will happen any more. */
  on(listener: EventListener, types: readonly string[] = defaultEvents): void {
    if (this.#closed) return
    this.#listeners.set(listener, new Set([...types, 'millpond:dropped']))
    this.#want()
  }

  off(listener: EventListener): void {
    if (this.#listeners.delete(listener)) this.#want()
  }

  /** What anybody wants to hear. */
  #wanted(): readonly string[] {
    const all = new Set<string>()
    for (const types of this.#listeners.values()) for (const type of types) all.add(type)
    all.delete('millpond:dropped')
    return [...all]
  }

  #want(): void {
    const events = this.#wanted()
    this.#own.want(events)
    for (const { port } of this.#threads) say(port, { type: 'want', events })
  }

  /** What this thread itself listens to. */
  readonly #own = new Subscriptions((event) => {
    if (this.#isOwn(event as OwnEvent)) this.#deliver({ ...(event as ServiceEvent), thread: this.#here })
  })

  /** In this thread there may be other services, and pools that are no service's. */
  #isOwn(event: OwnEvent): boolean {
    if ('server' in event) return serviceOf(event) === this.#service
    const pool = this.#pool()
    if ('pool' in event) return event.pool === pool?.name
    this.#broker ??= pool?.stats().broker?.name
    return event.broker === this.#broker
  }

  readonly #onMessage = (message: unknown): void => {
    const introduction = message as Partial<WatchIntroduction> | null
    if (introduction?.millpond !== 'watched thread' || introduction.service !== this.#service) return
    const { thread, loop, port } = introduction as WatchIntroduction
    const watched: Watched = { thread, loop, port }
    this.#threads.add(watched)
    port.once('close', () => this.#threads.delete(watched))
    port.on('message', (said: FromWatched) => this.#hear(watched, said))
    port.unref()
    const events = this.#wanted()
    if (events.length > 0) say(port, { type: 'want', events })
  }

  #hear({ thread, port }: Watched, { events, dropped }: FromWatched): void {
    if (dropped > 0) {
      this.#dropped += dropped
      this.#deliver({ type: 'millpond:dropped', count: dropped, thread })
    }
    for (const event of events) this.#deliver({ ...unpackEvent(event), thread } as unknown as ServiceEvent)
    say(port, { type: 'taken', count: events.length })
  }

  #deliver(event: ServiceEvent): void {
    this.#delivered++
    for (const [listener, types] of this.#listeners) {
      if (!types.has(event.type)) continue
      try {
        listener(event)
      } catch (error) {
        process.emitWarning(`A listener to a service's events threw: ${messageOf(error)}`, 'MillpondWarning')
      }
    }
  }
}

function statsOf(thread: EventThread, loop: Int32Array): ThreadStats {
  return { ...thread, eventLoop: loopStats(loop) }
}

function say(port: MessagePort, message: ToWatched): void {
  port.postMessage(message)
}
