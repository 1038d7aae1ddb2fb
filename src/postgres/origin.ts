const frames = 4
const noted = new WeakMap<object, Error>()

/** Where a query was made, as its errors show it. */
export interface Origin {
  readonly stack?: string | undefined
}

/**
 * The caller of `tag`: a few frames of the first who comes with a text, which costs nothing for those after him. With
 * `each`, the whole stack of every caller.
 */
export function originOf(text: readonly string[], tag: (...values: never[]) => unknown, each: unknown): Origin {
  if (each) return stackOf(tag, Error.stackTraceLimit)
  let origin = noted.get(text)
  if (!origin) noted.set(text, (origin = stackOf(tag, frames)))
  return origin
}

function stackOf(tag: (...values: never[]) => unknown, limit: number): Error {
  const usual = Error.stackTraceLimit
  Error.stackTraceLimit = limit
  const error = new Error()
  Error.captureStackTrace(error, tag)
  Error.stackTraceLimit = usual
  return error
}
