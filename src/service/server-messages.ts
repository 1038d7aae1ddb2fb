import type { MessagePort } from 'node:worker_threads'
import type { ThreadData } from './thread.ts'
import type { Wire } from './wire.ts'

/** What a server's thread is started with. */
export interface ServerData extends ThreadData {
  readonly module: string
  readonly name: string
  readonly index: number
  readonly data: unknown
  readonly port: MessagePort
  /** Its predecessor has ended by itself, so there are requests that wait for it. */
  readonly isRestart: boolean
  /** How the whole service is; see `server-status.ts`. */
  readonly status: Int32Array
  /** Whether there are tasks to run. */
  readonly hasTasks: boolean
}

/** How a thread is to listen: on this port, or not at all while another thread does. */
export type ListenAnswer =
  | { readonly how: 'listen'; readonly port: number; readonly reusePort: boolean }
  | { readonly how: 'stand by'; readonly address: unknown }
  | { readonly how: 'fail'; readonly error: Wire }

/** What a server's thread says to the service … */
export type FromServerThread =
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly error: Wire }
  | { readonly type: 'address'; readonly address: unknown }
  /** It asks how to listen; then it does, … */
  | { readonly type: 'may listen'; readonly key: string; readonly port: number; readonly host: string | undefined }
  | { readonly type: 'listens'; readonly key: string; readonly address: unknown }
  /** … or cannot, or does no more. */
  | { readonly type: 'listens not'; readonly key: string; readonly error: Wire | undefined }
  /** Its pool keeps as many connections as it was told; `min` as soon as the limit has room for them. */
  | { readonly type: 'keeps'; readonly connections: 'none' | 'min' }

/** … and what the service says to it. */
export type ToServerThread =
  | { readonly type: 'stop'; readonly timeoutMs: number }
  | { readonly type: 'listen'; readonly key: string; readonly answer: ListenAnswer }
  /** Of two threads in one place only one is to keep `min` connections: `none`, or what its options say. */
  | { readonly type: 'keep'; readonly connections: 'none' | 'min' }
