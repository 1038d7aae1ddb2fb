import type { Transferable } from 'node:worker_threads'
import { types } from 'node:util'

/** A value as it crosses threads. */
export interface Parcel {
  readonly value: unknown
  /** The Buffers in it: structured clone makes plain `Uint8Array`s of them. */
  readonly buffers?: readonly Uint8Array[]
  /** What was moved, so that a thread in the middle can move it on. */
  readonly transfer?: readonly Transferable[]
}

/** Makes a value ready to cross. What cannot cross shows when it is posted. */
export function pack(value: unknown, transfer: readonly Transferable[] = []): Parcel {
  if (typeof value !== 'object' || value === null) return { value }
  const buffers: Buffer[] = []
  const moved = new Set<unknown>(transfer)
  let slabs = false
  // A Buffer may be a small part of a large slab, all of which would be copied.
  const partial = (buffer: Buffer): boolean => {
    return buffer.byteLength !== buffer.buffer.byteLength && !moved.has(buffer.buffer)
  }
  visit(value, (member) => {
    if (!Buffer.isBuffer(member)) return
    buffers.push(member)
    slabs ||= partial(member)
  })
  const own = transfer.length > 0 ? { transfer } : undefined
  if (buffers.length === 0) return { value, ...own }
  if (!slabs) return { value, buffers, ...own }
  const compact = new Map<Buffer, Uint8Array>()
  for (const buffer of new Set(buffers)) compact.set(buffer, partial(buffer) ? new Uint8Array(buffer) : buffer)
  return { value: rebuild(value, compact, new Map()), buffers: [...compact.values()], ...own }
}

/** The value of a parcel that has crossed. */
export function unpack({ value, buffers = [] }: Parcel): unknown {
  for (const buffer of buffers) Object.setPrototypeOf(buffer, Buffer.prototype)
  return value
}

/** Whether structured clone takes a value. */
export function canCross(value: unknown, transfer: readonly Transferable[] = []): boolean {
  if (typeof value === 'function' || typeof value === 'symbol') return false
  if (typeof value !== 'object' || value === null) return true
  try {
    // Moving them would take them from their owner.
    const rest = transfer.length > 0 ? withoutMoved(value, transfer) : value
    structuredClone(rest)
    return true
  } catch {
    return false
  }
}

/** Says what of a value cannot cross: `its "rows[3].callback" is a function`. Slow; for errors. */
export function culpritIn(value: unknown, transfer: readonly Transferable[] = []): string {
  const { path, culprit } = findCulprit(value, transfer)
  return `${path ? `its "${path.replace(/^\./, '')}"` : 'it'} is ${kindOf(culprit)}`
}

/** Where in a value that cannot cross the culprit is: `.rows[3].callback`, or '' for the value itself. */
export function findCulprit(
  value: unknown,
  transfer: readonly Transferable[] = [],
): { readonly path: string; readonly culprit: unknown } {
  const seen = new Set<unknown>()
  let path = ''
  let culprit = value
  // Ever deeper into the member that does not cross, until all members of it do.
  while (typeof culprit === 'object' && culprit !== null && !seen.has(culprit)) {
    seen.add(culprit)
    const next = membersOf(culprit).find(([, member]) => !seen.has(member) && !canCross(member, transfer))
    if (!next) break
    path += next[0]
    culprit = next[1]
  }
  return { path, culprit }
}

function kindOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return `a ${typeof value}`
  const name: unknown = (value as { constructor?: { name?: unknown } }).constructor?.name
  return typeof name === 'string' && name !== '' ? `of class ${name}` : 'an object'
}

/** The members that structured clone looks at, each with the text that leads to it. */
function membersOf(value: object): [string, unknown][] {
  if (value instanceof Map) {
    return [...value].flatMap(([key, member]): [string, unknown][] => [
      ['.keys()', key],
      [`.get(${typeof key === 'string' ? `'${key}'` : String(key)})`, member],
    ])
  }
  if (value instanceof Set) return [...value].map((member) => ['.values()', member])
  return Object.entries(value).map(([key, member]) => [
    Array.isArray(value) && /^\d+$/.test(key) ? `[${key}]` : /^[\w$]+$/.test(key) ? `.${key}` : `['${key}']`,
    member,
  ])
}

function withoutMoved(value: unknown, transfer: readonly Transferable[]): unknown {
  const moved = new Set<unknown>(transfer)
  if (moved.has(value)) return undefined
  return rebuild(value, new Map([...moved].map((one) => [one, undefined])), new Map())
}

/** Looks at every object in a value once. */
function visit(value: object, look: (member: object) => void): void {
  const seen = new Set<object>([value])
  const todo: object[] = [value]
  const add = (member: unknown): void => {
    if (typeof member !== 'object' || member === null || seen.has(member)) return
    seen.add(member)
    todo.push(member)
  }
  for (let current = todo.pop(); current; current = todo.pop()) {
    look(current)
    if (ArrayBuffer.isView(current) || types.isAnyArrayBuffer(current) || types.isProxy(current)) continue
    if (current instanceof Map) {
      for (const [key, member] of current) {
        add(key)
        add(member)
      }
    } else if (current instanceof Set) {
      for (const member of current) add(member)
    } else if (Array.isArray(current)) {
      for (const member of current) add(member)
    } else {
      for (const key of Object.keys(current)) {
        const property = Object.getOwnPropertyDescriptor(current, key)
        // A getter may have effects, and is called by the clone once.
        if (property && 'value' in property) add(property.value)
      }
    }
  }
}

/** The same value with some of its members replaced: copies of what structured clone would copy as plain data. */
function rebuild(value: unknown, instead: ReadonlyMap<unknown, unknown>, done: Map<unknown, unknown>): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (instead.has(value)) return instead.get(value)
  if (done.has(value)) return done.get(value)
  const again = (member: unknown): unknown => rebuild(member, instead, done)
  if (Array.isArray(value)) {
    const copy: unknown[] = []
    done.set(value, copy)
    copy.length = value.length
    for (const [key, member] of Object.entries(value)) Reflect.set(copy, key, again(member))
    return copy
  }
  if (value instanceof Map) {
    const copy = new Map()
    done.set(value, copy)
    for (const [key, member] of value) copy.set(again(key), again(member))
    return copy
  }
  if (value instanceof Set) {
    const copy = new Set()
    done.set(value, copy)
    for (const member of value) copy.add(again(member))
    return copy
  }
  if (!isPlain(value)) return value
  const copy: Record<string, unknown> = {}
  done.set(value, copy)
  for (const [key, member] of Object.entries(value)) {
    Object.defineProperty(copy, key, { value: again(member), enumerable: true, configurable: true, writable: true })
  }
  return copy
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  return (prototype === Object.prototype || prototype === null) && !types.isProxy(value)
}
