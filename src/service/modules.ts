import type { Transferable } from 'node:worker_threads'
import type { PostgresPool } from '../postgres/index.ts'
import { optionTypeError } from '../errors.ts'
import type { Cloned } from './cloned.ts'
import type { DefinedTypes } from './define-pool.ts'
import { shownUrl } from './shown-url.ts'

declare const exportsOf: unique symbol
declare const definitionIn: unique symbol

/** A module of tasks: where it is, and (for the compiler only) what it exports. */
export interface TaskModule<M> {
  readonly href: string
  readonly [exportsOf]?: M
}

/** A module whose default export starts a server. */
export interface ServerModule {
  readonly href: string
}

/** The address of a module that defines the pools. What is declared here is for the compiler only. */
export type PoolModule<D> = URL & { readonly [definitionIn]?: D }

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

/**
 * Names a module whose default export is `definePool({ … })`, for a service's `url`: with what it exports the types of the
 * definition are those of `service.pool`, too. The address alone does as well, without them.
 *
 * @example
 * ```ts
 * import { createService, poolModule } from 'millpond/service'
 * import type { PoolDefinition } from 'millpond/service'
 *
 * const url = poolModule<{ default: PoolDefinition }>(new URL('./db.js', import.meta.url)) // <typeof import('./db.js')>
 * const service = createService({ url, limit: 20 })
 * ```
 */
export function poolModule<D>(url: URL): PoolModule<D> {
  hrefOf('poolModule', url)
  return url
}

/**
 * What a task gets beside its input. `M` is what `run` may call; `D` the definition of the pool, or the module that has it
 * (`typeof import('./db.js')`), for its custom types.
 */
export interface TaskContext<M = unknown, D = {}> {
  /**
   * This thread's pool, under the limit that all threads share. A connection that the task still holds when it ends, in
   * whatever way, is reported and closed. Before a long synchronous stretch, `pool.releaseIdle()` gives idle connections back.
   */
  readonly pool: PostgresPool<DefinedTypes<D>>
  /** Aborts when the caller gives up. A loop that never awaits does not see it: poll `aborted` there. */
  readonly signal: AbortSignal
  /** Whether the caller has given up; true at once, also in the middle of a loop that never awaits. */
  readonly aborted: boolean
  /** Throws the signal's reason if the caller has given up. */
  readonly throwIfAborted: () => void
  /**
   * Tells the caller how far it is. As long as the caller has not taken 64 values, each further one takes the place of
   * the one before it; the last one always arrives. Throws `TaskError` for what cannot cross threads.
   */
  readonly progress: (value: unknown) => void
  /** Says of the result what is to be moved instead of being copied: `return transfer(bytes, [bytes.buffer])`. */
  readonly transfer: <T extends object>(value: T, list: readonly Transferable[]) => T
  /**
   * Runs another task, on a worker of its own; it is given up when this one is. Rejects with `TaskDeadlockError` where
   * it could only start once this task has ended.
   */
  readonly run: Run<M>
}

// oxlint-disable-next-line no-explicit-any -- any task's input is allowed here; `run` checks each against its own
type AnyTask = (input: any, context: any) => unknown

/** The exports of a module that are tasks. */
export type TaskNames<M> = {
  [K in keyof M]: K extends 'default' ? never : K extends string ? (M[K] extends AnyTask ? K : never) : never
}[keyof M]

type Names<G> = { [N in keyof G & string]: `${N}.${TaskNames<G[N]>}` }[keyof G & string]

/**
 * Several modules of tasks as one, as `run` sees them: `TasksOf<{ images: typeof import('./images.js') }>` has
 * `'images.resize'`.
 */
export type TasksOf<G> = {
  [K in Names<G>]: K extends `${infer N}.${infer T}`
    ? N extends keyof G
      ? T extends keyof G[N]
        ? G[N][T]
        : never
      : never
    : never
}

type InputOf<T> = T extends (...args: infer A extends unknown[]) => unknown ? (A extends [] ? undefined : A[0]) : never
type ResultOf<T> = T extends (...args: never[]) => infer R ? Cloned<Awaited<R>> : never
type Arguments<T, O> =
  undefined extends InputOf<T> ? [input?: InputOf<T>, options?: O] : [input: InputOf<T>, options?: O]

/** What one call of a task may say for itself. */
export interface RunOptions {
  /** Gives up: the call rejects with `signal.reason` at once, and the task is told. */
  signal?: AbortSignal
  /**
   * Gives up with a `TaskTimeoutError` when the task is not done by then, waiting for a worker included. In ms, from the
   * call on.
   * @default Infinity
   */
  timeoutMs?: number
  /**
   * What of the input is moved instead of being copied. It is of no more use here.
   * @default []
   */
  transfer?: readonly Transferable[]
  /**
   * Of the calls that wait for a worker, those of a higher priority start first.
   * @default 0
   */
  priority?: number
  /** Hears what the task tells with `progress`, before the result comes. If it throws, the call rejects with that. */
  onProgress?: (value: unknown) => void
}

/** What `runAll` may be told, for itself and for each of its calls. */
export interface RunAllOptions extends Omit<RunOptions, 'onProgress' | 'transfer'> {
  /**
   * Inputs that have been taken and whose results have not, at the most.
   * @default as many as the workers run at a time
   */
  concurrency?: number
  /**
   * Whether results come in the order of their inputs, or as they are there.
   * @default 'input'
   */
  order?: 'input' | 'completion'
}

/** A call's result to come. */
export interface TaskRun<R> extends Promise<R> {
  /**
   * What the task tells with `progress`, for one reader; it ends with the task. What the task throws rejects the call only:
   * await that, too. Values wait here until they are read, 64 at the most: see `TaskContext.progress`.
   */
  readonly progress: AsyncIterable<unknown>
}

/** Calls a task by its name; input and result are those of the exported function, the result as it arrives. */
export type Run<M> = <K extends TaskNames<M>>(name: K, ...args: Arguments<M[K], RunOptions>) => TaskRun<ResultOf<M[K]>>

/** Calls a task for each input. */
export type RunAll<M> = <K extends TaskNames<M>>(
  name: K,
  inputs: Iterable<InputOf<M[K]>> | AsyncIterable<InputOf<M[K]>>,
  options?: RunAllOptions,
) => AsyncGenerator<ResultOf<M[K]>, void, undefined>

function hrefOf(name: string, url: URL): string {
  if (url instanceof URL && url.protocol === 'file:') return url.href
  throw optionTypeError(
    'module',
    `${name} must be given a file URL, as in new URL('./module.js', import.meta.url): got ${shownUrl(url)}.`,
  )
}
