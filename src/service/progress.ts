import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { countTaken, taken } from './abort.ts'
import type { CallWords } from './abort.ts'

/** Values that may be under way to the caller, or wait there to be taken. */
export const progressWindow = 64

/**
 * The task's side. As long as the caller has not taken 64 values, each further one takes the place of the one before it:
 * a caller that is slow or does not listen costs no memory, and gets the newest at the latest when the task ends.
 */
export class ProgressSender {
  readonly #words: CallWords
  readonly #post: (value: unknown) => void
  #sent = 0
  #held: { readonly value: unknown } | undefined

  constructor(words: CallWords, post: (value: unknown) => void) {
    this.#words = words
    this.#post = post
  }

  send(value: unknown): void {
    if (this.#sent - taken(this.#words) >= progressWindow) {
      this.#held = { value }
      return
    }
    this.#held = undefined
    this.#sent++
    this.#post(value)
  }

  /** Before the reply. */
  end(): void {
    const held = this.#held
    this.#held = undefined
    if (held) this.#post(held.value)
  }
}

/** The caller's side: what has come and was not taken. One reader takes each value once. */
export class ProgressReader implements AsyncIterable<unknown> {
  readonly #words: CallWords
  readonly #values: unknown[] = []
  #reader: Deferred<void> | undefined
  #ended = false

  constructor(words: CallWords) {
    this.#words = words
  }

  push(value: unknown): void {
    this.#values.push(value)
    this.#wake()
  }

  end(): void {
    this.#ended = true
    this.#wake()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<unknown, void, undefined> {
    for (;;) {
      while (this.#values.length > 0) {
        const value = this.#values.shift()
        countTaken(this.#words)
        yield value
      }
      if (this.#ended) return
      this.#reader ??= deferred<void>()
      await this.#reader.promise
    }
  }

  #wake(): void {
    this.#reader?.resolve()
    this.#reader = undefined
  }
}
