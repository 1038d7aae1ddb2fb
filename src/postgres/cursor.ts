import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { rejectEarly, settleBy } from './query.ts'
import type { Give, PortionReader, RawQuery } from './query.ts'

type Rows = readonly unknown[]

/** postgres.js's `.cursor()`, with readers that can be told to leave, and that hear of every error. */
export function cursorOf(query: RawQuery, closing: unknown, rows: number | Give = 1, give?: Give): unknown {
  const fn = typeof rows === 'function' ? rows : give
  query.options.simple = false
  query.cursorRows = typeof rows === 'function' ? 1 : rows
  if (typeof fn === 'function') {
    query.reader = new CallbackReader(query, fn, closing)
    return query
  }
  let iterator: AsyncIterator<unknown> | undefined
  return { [Symbol.asyncIterator]: () => (iterator ??= iteratorOf(new Portions(query, closing))) }
}

/** What postgres.js does with the answer to a portion: it does not wait for that of the last one. */
const isLast = (rows: Rows): boolean => 'command' in rows && typeof rows.command === 'string'

/** Portions go to a callback; the next one is asked for when its promise has resolved. */
class CallbackReader implements PortionReader {
  left = false
  readonly #query: RawQuery
  readonly #closing: unknown
  readonly #leaving: Deferred<unknown> = deferred()
  #last: PromiseLike<unknown> | undefined

  constructor(query: RawQuery, give: Give, closing: unknown) {
    this.#query = query
    this.#closing = closing
    query.cursorFn = (rows) => this.#give(give, rows as Rows)
    const { resolve } = query
    settleBy(query, {
      resolve: (value) => {
        if (this.#last) {
          this.#last.then(
            () => resolve(value),
            (error: unknown) => query.reject(error),
          )
        } else resolve(value)
      },
    })
  }

  leave(): void {
    this.left = true
    this.#leaving.resolve(this.#closing)
  }

  #give(give: Give, rows: Rows): unknown {
    if (this.left) return this.#closing
    let answer: unknown
    try {
      answer = give(rows)
    } catch (error) {
      // The session is in order: only the reader has failed.
      rejectEarly(this.#query, error)
      this.left = true
      return this.#closing
    }
    if (!isPromise(answer)) {
      if (answer === this.#closing) this.left = true
      return answer
    }
    if (isLast(rows)) {
      this.#last = answer
      answer.then(undefined, nothing)
      return undefined
    }
    return Promise.race([this.#answered(answer), this.#leaving.promise])
  }

  async #answered(answer: PromiseLike<unknown>): Promise<unknown> {
    try {
      const value = await answer
      if (value === this.#closing) this.left = true
      return value
    } catch (error) {
      rejectEarly(this.#query, error)
      this.left = true
      return this.#closing
    }
  }
}

/**
 * Portions go to an iterator; the next one is asked for when somebody asks for it.
 *
 * State
 *   asked   those who wait for a portion, oldest first
 *   go      lets postgres.js go on: a portion has been given, and nobody has asked for the next one
 *   ended   no portion will come
 *   error   why, until somebody has been told
 */
class Portions implements PortionReader {
  left = false
  readonly #query: RawQuery
  readonly #closing: unknown
  #asked: Deferred<IteratorResult<unknown>>[] = []
  #go: ((answer: unknown) => void) | undefined
  #ended = false
  #error: { readonly error: unknown } | undefined

  constructor(query: RawQuery, closing: unknown) {
    this.#query = query
    this.#closing = closing
    query.reader = this
    query.cursorFn = (rows) => this.#give(rows)
    settleBy(query, {
      resolve: () => {
        query.active = false
        this.#end()
      },
      reject: (error) => {
        query.active = false
        if (!this.#ended) this.#fail(error)
      },
    })
  }

  next(): Promise<IteratorResult<unknown>> {
    if (this.#error) {
      const { error } = this.#error
      this.#error = undefined
      return Promise.reject(error)
    }
    if (this.#ended) return Promise.resolve(done)
    const asked = deferred<IteratorResult<unknown>>()
    this.#asked.push(asked)
    this.#goOn()
    this.#query.handle()
    return asked.promise
  }

  /** The reader has left. */
  return(): Promise<IteratorResult<unknown>> {
    if (!this.#ended) {
      this.#end()
      const query = this.#query
      // What has not been sent need not be.
      if (query.executed && !query.state) query.cancel()
      this.leave()
    }
    const { givenBack } = this.#query
    return givenBack ? givenBack.then(() => done) : Promise.resolve(done)
  }

  leave(): void {
    if (this.left) return
    this.left = true
    this.#goOn(this.#closing)
  }

  #give(rows: unknown): unknown {
    if (this.left) return this.#closing
    this.#asked.shift()?.resolve({ done: false, value: rows })
    if (this.#asked.length > 0) return undefined
    return new Promise((resolve) => {
      this.#go = resolve
    })
  }

  #goOn(answer?: unknown): void {
    this.#go?.(answer)
    this.#go = undefined
  }

  #end(): void {
    this.#ended = true
    for (const asked of this.#asked) asked.resolve(done)
    this.#asked = []
  }

  #fail(error: unknown): void {
    const first = this.#asked.shift()
    if (first) first.reject(error)
    else this.#error = { error }
    this.#end()
  }
}

/** Leaves the cursors of readers that have been forgotten in the middle. */
const forgotten = new FinalizationRegistry<Portions>((portions) => void portions.return())

/** What the reader holds: nothing of ours holds it. */
function iteratorOf(portions: Portions): AsyncIterator<unknown> {
  const iterator = { next: () => portions.next(), return: () => portions.return() }
  forgotten.register(iterator, portions)
  return iterator
}

const done: IteratorReturnResult<unknown> = { done: true, value: undefined }

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}

function nothing(): void {}
