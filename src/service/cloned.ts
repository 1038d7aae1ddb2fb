import type { MessagePort } from 'node:worker_threads'

type Primitive = string | number | bigint | boolean | null | undefined

/** What structured clone copies as what it is. A Buffer is made one again. */
type Kept =
  | ArrayBufferLike
  | ArrayBufferView
  | Blob
  | Date
  | Error
  | RegExp
  | MessagePort
  | ReadableStream
  | WritableStream
  | TransformStream

type AnyFunction = (...args: never[]) => unknown

/**
 * A value as it arrives in another thread: objects as plain data, without methods and symbols. A class instance loses its
 * class; an error of millpond's, or of JavaScript's own, keeps it, and any other keeps its name and its fields.
 */
export type Cloned<T> = unknown extends T
  ? T
  : T extends Primitive | Kept
    ? T
    : T extends AnyFunction | symbol
      ? never
      : T extends ReadonlyMap<infer K, infer V>
        ? Map<Cloned<K>, Cloned<V>>
        : T extends ReadonlySet<infer V>
          ? Set<Cloned<V>>
          : T extends readonly unknown[]
            ? number extends T['length']
              ? Cloned<T[number]>[]
              : { -readonly [K in keyof T]: Cloned<T[K]> }
            : { [K in keyof T as K extends symbol ? never : T[K] extends AnyFunction ? never : K]: Cloned<T[K]> }
