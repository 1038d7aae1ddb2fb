const frames = 4
const noted = new WeakMap<object, Error>()

/** Where a query was made, as its errors show it. */
export interface Origin {
  readonly stack?: string | undefined
}

type Tag = (...values: never[]) => unknown

/** A few frames of the first who has called `tag` with this text, which costs nothing for those after him. */
export function firstCallerOf(tag: Tag, text: readonly string[]): Origin {
  let origin = noted.get(text)
  if (!origin) noted.set(text, (origin = stackOf(tag, frames)))
  return origin
}

/** The stack of whoever calls `tag` now. */
export function callerOf(tag: Tag): Origin {
  return stackOf(tag, Error.stackTraceLimit)
}

function stackOf(tag: Tag, limit: number): Error {
  const usual = Error.stackTraceLimit
  Error.stackTraceLimit = limit
  const error = new Error()
  Error.captureStackTrace(error, tag)
  Error.stackTraceLimit = usual
  return error
}
