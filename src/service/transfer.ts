import type { Transferable } from 'node:worker_threads'

const lists = new WeakMap<object, readonly Transferable[]>()

/**
 * Says of a task's result what is to be moved to the caller instead of being copied, and gives it back. What was moved is
 * of no more use in the worker.
 *
 * @example
 * ```ts
 * import { transfer } from 'millpond/service'
 *
 * export function noise(size: number): Float64Array<ArrayBuffer> {
 *   const samples = new Float64Array(size).map(() => Math.random())
 *   return transfer(samples, [samples.buffer])
 * }
 * ```
 */
export function transfer<T extends object>(value: T, list: readonly Transferable[]): T {
  lists.set(value, list)
  return value
}

/** What `transfer` was told of a value. */
export function transferOf(value: unknown): readonly Transferable[] | undefined {
  return typeof value === 'object' && value !== null ? lists.get(value) : undefined
}
