import { MessageChannel, postMessageToThread, threadId } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { Subscriptions } from './subscriptions.ts'
import type { ThreadData } from './thread.ts'
import { packEvent } from './watch-events.ts'
import type { EventParcel, EventThread } from './watch-events.ts'
import { createLoopWords, watchLoop } from './watch-loop.ts'

/** How a thread lets itself be watched. */
export interface WatchIntroduction {
  readonly millpond: 'watched thread'
  readonly service: string
  readonly thread: EventThread
  readonly loop: Int32Array
  readonly port: MessagePort
}

/** What a watched thread says … */
export interface FromWatched {
  readonly events: readonly EventParcel[]
  /** Events that are missing before these. */
  readonly dropped: number
}

/** … and what it hears: which events are wanted, and how many have been taken. */
export type ToWatched =
  | { readonly type: 'want'; readonly events: readonly string[] }
  | { readonly type: 'taken'; readonly count: number }

/** Events on their way to the main thread, of one thread, at the most. */
export const mostEvents = 1_000

/** Lets the service's thread see how this one is doing, and hear its events once it asks for them. Keeps neither alive. */
export function watchThread(data: ThreadData, place: Omit<EventThread, 'threadId'>): void {
  const { port1, port2 } = new MessageChannel()
  const loop = createLoopWords()
  watchLoop(loop)
  const forwarder = new Forwarder((message) => port1.postMessage(message))
  port1.on('message', (message: ToWatched) => {
    if (message.type === 'want') forwarder.want(message.events)
    else forwarder.taken(message.count)
  })
  port1.unref()
  // An exit is often what the last events are about.
  process.once('exit', () => forwarder.flush())
  const introduction: WatchIntroduction = {
    millpond: 'watched thread',
    service: data.service,
    thread: { threadId, ...place },
    loop,
    port: port2,
  }
  // A thread that cannot be watched does its work all the same.
  postMessageToThread(data.home, introduction, [port2]).catch(() => undefined)
}

/** Sends events, a bounded number ahead of who takes them. */
export class Forwarder {
  readonly #say: (message: FromWatched) => void
  #batch: EventParcel[] = []
  #underWay = 0
  #dropped = 0
  #scheduled = false

  constructor(say: (message: FromWatched) => void) {
    this.#say = say
  }

  /** From now on these, and no others. */
  want(events: readonly string[]): void {
    this.#own.want(events)
  }

  taken(count: number): void {
    this.#underWay -= count
    // That some are missing is known even if no other event follows.
    if (this.#dropped > 0) this.flush()
  }

  flush(): void {
    this.#scheduled = false
    if (this.#batch.length === 0 && this.#dropped === 0) return
    const message: FromWatched = { events: this.#batch, dropped: this.#dropped }
    this.#underWay += this.#batch.length
    this.#batch = []
    this.#dropped = 0
    this.#say(message)
  }

  readonly #own = new Subscriptions((event) => {
    if (this.#underWay + this.#batch.length >= mostEvents) {
      this.#dropped++
      return
    }
    this.#batch.push(packEvent(event as object))
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.flush())
  })
}
