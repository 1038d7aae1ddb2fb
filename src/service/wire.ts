import { inspect } from 'node:util'
import * as errors from '../errors.ts'
import { canCross } from './clone.ts'
import * as taskErrors from './errors.ts'

/** An error as it crosses threads: what structured clone would drop (class, name, code) is written out. */
export interface WireError {
  readonly kind: 'error'
  readonly className: string
  readonly name: string
  readonly message: string
  readonly stack: string | undefined
  readonly cause: Wire | undefined
  /** Of an `AggregateError`. */
  readonly errors: readonly Wire[] | undefined
  /** Its other own properties, as far as they can be cloned: `code` and the like. */
  readonly properties: Readonly<Record<string, Wire>>
}

/** Something that is no error. */
export interface WireValue {
  readonly kind: 'value'
  readonly value: unknown
}

export type Wire = WireError | WireValue

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
    ...[...Object.values(errors), ...Object.values(taskErrors)].filter((value): value is typeof errors.PoolError =>
      isErrorClass(value),
    ),
  ].map((one) => [one.name, one]),
)

const writtenOut = new Set(['name', 'message', 'stack', 'cause', 'errors'])
const deepest = 8

/** Writes a thrown value out so that it can cross threads. Never throws. */
export function toWire(thrown: unknown): Wire {
  return write(thrown, 0, new Set())
}

/** `within`: the errors that this one is a part of; they may form a circle. */
function write(thrown: unknown, depth: number, within: ReadonlySet<unknown>): Wire {
  try {
    if (!(thrown instanceof Error)) return { kind: 'value', value: canCross(thrown) ? thrown : inspect(thrown) }
    const inner = new Set([...within, thrown])
    const next = (part: unknown): Wire => write(part, depth + 1, inner)
    const isEnd = (part: unknown): boolean => part instanceof Error && (depth >= deepest || inner.has(part))
    const properties: Record<string, Wire> = {}
    for (const [key, value] of Object.entries(thrown)) {
      if (writtenOut.has(key) || isEnd(value) || (!(value instanceof Error) && !canCross(value))) continue
      properties[key] = next(value)
    }
    const parts: unknown = thrown instanceof AggregateError ? thrown.errors : undefined
    return {
      kind: 'error',
      className: thrown.constructor.name,
      name: text(thrown.name),
      message: text(thrown.message),
      stack: thrown.stack === undefined ? undefined : text(thrown.stack),
      cause: thrown.cause === undefined || isEnd(thrown.cause) ? undefined : next(thrown.cause),
      errors: Array.isArray(parts) ? parts.filter((part) => !isEnd(part)).map(next) : undefined,
      properties,
    }
  } catch (error) {
    // A getter of it throws, for example.
    return { kind: 'value', value: `something that cannot be shown (${errors.messageOf(error)})` }
  }
}

/** The error again, of its own class where this side knows it, else an `Error` of the same name. */
export function fromWire(wire: Wire): unknown {
  if (wire.kind === 'value') return wire.value
  // What a DOMException has inside, its code included, cannot be given to it later.
  if (wire.className === 'DOMException') return withDetails(new DOMException(wire.message, wire.name), wire)
  return reviveAs({}, wire)
}

/** Makes of an object what the error was. */
export function reviveAs(object: object, wire: WireError): object {
  const { className, name, message } = wire
  const isDom = className === 'DOMException'
  Object.setPrototypeOf(object, (isDom ? DOMException : (classes.get(className) ?? Error)).prototype as object)
  Object.defineProperty(object, 'message', { ...hidden, value: message })
  Object.defineProperty(object, 'name', { ...hidden, value: name })
  if (isDom) Object.defineProperty(object, 'code', { ...hidden, value: new DOMException('', name).code })
  return withDetails(object, wire)
}

const hidden = { configurable: true, writable: true, enumerable: false }

function withDetails(error: object, { stack, cause, errors: parts, properties }: WireError): object {
  Object.defineProperty(error, 'stack', { ...hidden, value: stack })
  if (cause) Object.defineProperty(error, 'cause', { ...hidden, value: fromWire(cause) })
  if (parts) Object.defineProperty(error, 'errors', { ...hidden, value: parts.map(fromWire) })
  for (const [key, value] of Object.entries(properties)) {
    Object.defineProperty(error, key, { ...hidden, enumerable: true, value: fromWire(value) })
  }
  return error
}

/** Whatever it is in fact, so that it crosses. */
function text(value: unknown): string {
  return String(value)
}

function isErrorClass(value: unknown): boolean {
  return typeof value === 'function' && value.prototype instanceof Error
}
