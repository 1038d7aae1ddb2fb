import type { PostgresPool } from '../postgres/index.ts'
import { optionTypeError } from '../errors.ts'

declare const exportsOf: unique symbol

/** A module of tasks: where it is, and (for the compiler only) what it exports. */
export interface TaskModule<M> {
  readonly href: string
  readonly [exportsOf]?: M
}

/** A module whose default export starts a server. */
export interface ServerModule {
  readonly href: string
}

/**
 * Names a module of tasks. Each function that it exports is a task: it gets the input and a `TaskContext`.
 *
 * @example
 * ```ts
 * import { taskModule } from 'millpond/service'
 *
 * const tasks = taskModule<{ double: (n: number) => number }>(new URL('./tasks.js', import.meta.url))
 * ```
 */
export function taskModule<M>(url: URL): TaskModule<M> {
  return { href: hrefOf('taskModule', url) }
}

/** Names a module whose default export starts a server: `export default async function start(context) { … }`. */
export function serverModule(url: URL): ServerModule {
  return { href: hrefOf('serverModule', url) }
}

/** What a task gets beside its input. */
export interface TaskContext {
  /** This thread's pool, under the limit that all threads share. */
  readonly pool: PostgresPool
  /** Aborts when the caller gives up. A loop that never awaits does not see it: poll `aborted` there. */
  readonly signal: AbortSignal
  /** Whether the caller has given up; true at once, also in the middle of a loop that never awaits. */
  readonly aborted: boolean
  /** Throws the signal's reason if the caller has given up. */
  readonly throwIfAborted: () => void
}

/** What a server gets to start with. */
export interface ServerContext<M = unknown> {
  /** This thread's pool, under the limit that all threads share. */
  readonly pool: PostgresPool
  /** Runs a task on a task worker. */
  readonly run: Run<M>
  /** Whatever the service's options say for this server. */
  readonly data: unknown
  /** Aborts when the server is to stop. */
  readonly signal: AbortSignal
  /** 0 for the first thread of this server, 1 for the second… */
  readonly index: number
  /** Tells the service's `addresses` where this server listens. */
  readonly announce: (address: unknown) => void
}

// oxlint-disable-next-line no-explicit-any -- any task's input is allowed here; `run` checks each against its own
type AnyTask = (input: any, context: TaskContext) => unknown

/** The exports of a module that are tasks. */
export type TaskNames<M> = {
  [K in keyof M]: K extends 'default' ? never : K extends string ? (M[K] extends AnyTask ? K : never) : never
}[keyof M]

type InputOf<T> = T extends () => unknown
  ? undefined
  : T extends (input: infer I, ...rest: never[]) => unknown
    ? I
    : never
type ResultOf<T> = T extends (...args: never[]) => infer R ? Awaited<R> : never

/** What one call of a task may say for itself. */
export interface RunOptions {
  /** Gives up: the call rejects with `signal.reason` at once, and the task is told. */
  signal?: AbortSignal
}

/** Calls a task by its name; input and result are those of the exported function. */
export type Run<M> = <K extends TaskNames<M>>(
  name: K,
  ...args: undefined extends InputOf<M[K]>
    ? [input?: InputOf<M[K]>, options?: RunOptions]
    : [input: InputOf<M[K]>, options?: RunOptions]
) => Promise<ResultOf<M[K]>>

function hrefOf(name: string, url: URL): string {
  if (url instanceof URL && url.protocol === 'file:') return url.href
  throw optionTypeError(
    'module',
    `${name} must be given a file URL, as in new URL('./module.js', import.meta.url): got ${String(url)}.`,
  )
}
