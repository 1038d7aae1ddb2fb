import { MessageChannel, postMessageToThread, threadId } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import type { PostgresPoolOptions } from '../postgres/index.ts'
import type { AbortWord } from './abort.ts'
import type { Reply } from './wire.ts'

/** What every thread of a service is started with: how to make its pool. */
export interface ThreadData {
  /** Tells the services of one process apart. */
  readonly service: string
  /** The thread that made the service. */
  readonly home: number
  readonly url: string
  readonly pool: PostgresPoolOptions
}

export interface TaskThreadData extends ThreadData {
  readonly module: string
}

export interface ServerThreadData extends ThreadData {
  readonly module: string
  readonly name: string
  readonly index: number
  readonly data: unknown
  readonly port: MessagePort
}

/** One call of a task, as it travels. Piscina's handlers get a single argument. */
export interface TaskCall {
  /** Undefined: only load the module. */
  readonly task: string | undefined
  readonly input: unknown
  readonly abort: AbortWord | undefined
}

/** What a server's thread says to the service … */
export type FromServer =
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly reply: Reply }
  | { readonly type: 'address'; readonly address: unknown }
  | {
      readonly type: 'run'
      readonly id: number
      readonly task: string
      readonly input: unknown
      readonly abort: AbortWord | undefined
    }

/** … and what the service says to it. */
export type ToServer =
  | { readonly type: 'stop' }
  | { readonly type: 'reply'; readonly id: number; readonly reply: Reply }

/** What a task worker hands to the service's thread: the port through which it is told to close its pool. */
export interface Introduction {
  readonly millpond: 'task worker'
  readonly service: string
  readonly threadId: number
  readonly port: MessagePort
}

/** Gives the service's thread a port of this thread's, which keeps neither alive. */
export function introduce(data: ThreadData): MessagePort {
  const { port1, port2 } = new MessageChannel()
  port1.unref()
  const introduction: Introduction = { millpond: 'task worker', service: data.service, threadId, port: port2 }
  postMessageToThread(data.home, introduction, [port2]).catch((error: unknown) => {
    process.emitWarning(`A task worker could not reach the thread that made its service: ${String(error)}`)
  })
  return port1
}
