import { MessageChannel, postMessageToThread, threadId } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import type { PostgresPoolOptions } from '../postgres/index.ts'
import type { CallWords } from './abort.ts'
import type { Parcel, TaskReply } from './parcel.ts'

/** What every thread of a service is started with: how to make its pool. */
export interface ThreadData {
  /** Tells the services of one process apart. */
  readonly service: string
  /** The thread that made the service. */
  readonly home: number
  /** Of a database, or of a module that defines a pool; undefined: `PGHOST` and so on say where. */
  readonly url: string | undefined
  readonly pool: PostgresPoolOptions
  /** A module that is loaded before anything else. */
  readonly instrument?: string | undefined
}

export interface TaskThreadData extends ThreadData {
  readonly module: string
  /** Which task workers it is one of: the name of their module, `tasks` where there is only one. */
  readonly group: string
}

/** One call of a task, as it travels. Piscina's handlers get a single argument. */
export interface TaskCall {
  readonly id: number
  readonly task: string
  /** Undefined: only load the module. */
  readonly exported: string | undefined
  readonly input: Parcel
  readonly words: CallWords
}

/** What any thread says to the service through the port it has introduced itself with: about a call that it runs … */
export type FromThread =
  | { readonly type: 'progress'; readonly id: number; readonly value: Parcel }
  | { readonly type: 'reply'; readonly id: number; readonly reply: TaskReply }
  /** … or makes, */
  | {
      readonly type: 'run'
      readonly id: number
      readonly task: string
      readonly input: Parcel
      readonly words: CallWords
      readonly priority: number
      /** The call that makes it. */
      readonly parent: number | undefined
    }
  | { readonly type: 'give up'; readonly id: number }
  /** … or warns of: warnings of a worker thread are heard in that thread only. */
  | { readonly type: 'warning'; readonly message: string }

/** … and what the service says to it: about a call that it has made, or that its pool is to be closed. */
export type ToThread =
  | { readonly type: 'progress'; readonly id: number; readonly value: Parcel }
  | { readonly type: 'reply'; readonly id: number; readonly reply: TaskReply }
  | { readonly type: 'close' }

/** How a thread hands its port to the service's. */
export interface Introduction {
  readonly millpond: 'thread of a service'
  readonly service: string
  /** Of a task worker. */
  readonly group: string | undefined
  readonly threadId: number
  readonly port: MessagePort
}

/**
 * Gives the service's thread a port of this thread's, which keeps neither alive. `known` resolves when the service has it:
 * what is posted before arrives all the same, unless it rejects.
 */
export function introduce(data: ThreadData & { readonly group?: string }): { port: MessagePort; known: Promise<void> } {
  const { port1, port2 } = new MessageChannel()
  port1.unref()
  const introduction: Introduction = {
    millpond: 'thread of a service',
    service: data.service,
    group: data.group,
    threadId,
    port: port2,
  }
  return { port: port1, known: postMessageToThread(data.home, introduction, [port2]) }
}
