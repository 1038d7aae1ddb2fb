import type { Transferable } from 'node:worker_threads'
import { replace, visit } from './clone.ts'
import { reviveAs, toWire } from './wire.ts'
import type { Wire, WireError } from './wire.ts'

/** A value as it crosses threads. */
export interface Parcel {
  readonly value: unknown
  /** The Buffers in it: structured clone makes plain `Uint8Array`s of them. */
  readonly buffers?: readonly Uint8Array[]
  /** What stands in it for errors, of which structured clone would keep little more than the message. */
  readonly errors?: readonly (readonly [standIn: object, error: WireError])[]
  /** What was moved, so that a thread in the middle can move it on. */
  readonly transfer?: readonly Transferable[]
}

/** What comes back for a call: its result, or why there is none. */
export type TaskReply = { readonly ok: true; readonly value: Parcel } | { readonly ok: false; readonly error: Wire }

/** Makes a value ready to cross. What cannot cross shows when it is posted. */
export function pack(value: unknown, transfer: readonly Transferable[] = []): Parcel {
  if (typeof value !== 'object' || value === null) return { value }
  const buffers: Buffer[] = []
  const thrown: Error[] = []
  visit(value, (member) => {
    if (Buffer.isBuffer(member)) buffers.push(member)
    else if (member instanceof Error) thrown.push(member)
  })
  const own = transfer.length > 0 ? { transfer } : undefined
  if (buffers.length === 0 && thrown.length === 0) return { value, ...own }
  const moved = new Set<unknown>(transfer)
  const instead = new Map<object, object>()
  const kept = buffers.map((buffer): Uint8Array => {
    // It may be a small part of a large slab, all of which would be copied.
    if (buffer.byteLength === buffer.buffer.byteLength || moved.has(buffer.buffer)) return buffer
    const compact = new Uint8Array(buffer)
    instead.set(buffer, compact)
    return compact
  })
  const errors = thrown.map((error): readonly [object, WireError] => {
    const standIn = {}
    instead.set(error, standIn)
    return [standIn, wireOf(error)]
  })
  return {
    value: instead.size === 0 ? value : replace(value, instead),
    ...(kept.length > 0 ? { buffers: kept } : undefined),
    ...(errors.length > 0 ? { errors } : undefined),
    ...own,
  }
}

/** The value of a parcel that has crossed. */
export function unpack({ value, buffers = [], errors = [] }: Parcel): unknown {
  for (const buffer of buffers) Object.setPrototypeOf(buffer, Buffer.prototype)
  for (const [standIn, error] of errors) reviveAs(standIn, error)
  return value
}

function wireOf(error: Error): WireError {
  const wire = toWire(error)
  // Of one that cannot even be looked at there is only a word left.
  return wire.kind === 'error' ? wire : wireOf(new Error(String(wire.value)))
}
