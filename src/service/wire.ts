import { inspect } from 'node:util'
import * as errors from '../errors.ts'

/** An error as it crosses threads: what structured clone would drop (class, name, code) is written out. */
export interface WireError {
  readonly kind: 'error'
  readonly className: string
  readonly name: string
  readonly message: string
  readonly stack: string | undefined
  readonly cause: WireError | WireValue | undefined
  /** Its other own properties, as far as they can be cloned: `code` and the like. */
  readonly properties: Readonly<Record<string, unknown>>
}

/** Something thrown that is no error. */
export interface WireValue {
  readonly kind: 'value'
  readonly value: unknown
}

/** What comes back for a call: its result, or why there is none. */
export type Reply =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly error: WireError | WireValue }

type ErrorClass = abstract new (...args: never[]) => Error

const classes = new Map<string, ErrorClass>(
  [
    Error,
    AggregateError,
    EvalError,
    RangeError,
    ReferenceError,
    SyntaxError,
    TypeError,
    URIError,
    ...Object.values(errors).filter((value): value is typeof errors.PoolError => isErrorClass(value)),
  ].map((one) => [one.name, one]),
)

const writtenOut = new Set(['name', 'message', 'stack', 'cause'])

/** Writes a thrown value out so that it can cross threads. Never throws. */
export function toWire(thrown: unknown, depth = 0): WireError | WireValue {
  if (!(thrown instanceof Error)) return { kind: 'value', value: canCross(thrown) ? thrown : inspect(thrown) }
  const properties: Record<string, unknown> = {}
  for (const key of Object.keys(thrown)) {
    const value: unknown = Reflect.get(thrown, key)
    if (!writtenOut.has(key) && canCross(value)) properties[key] = value
  }
  return {
    kind: 'error',
    className: thrown.constructor.name,
    name: thrown.name,
    message: thrown.message,
    stack: thrown.stack,
    cause: thrown.cause === undefined || depth > 8 ? undefined : toWire(thrown.cause, depth + 1),
    properties,
  }
}

/** The error again, of its own class where this side knows it, else an `Error` of the same name. */
export function fromWire(wire: WireError | WireValue): unknown {
  if (wire.kind === 'value') return wire.value
  const { className, name, message, stack, cause, properties } = wire
  const found = classes.get(className) ?? Error
  const error: Error = Object.create(found.prototype as object) as Error
  const hidden = { configurable: true, writable: true, enumerable: false }
  Object.defineProperty(error, 'message', { ...hidden, value: message })
  Object.defineProperty(error, 'stack', { ...hidden, value: stack })
  Object.defineProperty(error, 'name', { ...hidden, value: name })
  if (cause) Object.defineProperty(error, 'cause', { ...hidden, value: fromWire(cause) })
  return Object.assign(error, properties)
}

/** Whether structured clone takes a value. */
export function canCross(value: unknown): boolean {
  if (value === null || (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'symbol'))
    return true
  try {
    structuredClone(value)
    return true
  } catch {
    return false
  }
}

function isErrorClass(value: unknown): boolean {
  return typeof value === 'function' && value.prototype instanceof Error
}
