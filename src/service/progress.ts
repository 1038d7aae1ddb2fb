import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { countTaken, taken } from './abort.ts'
import type { CallWords } from './abort.ts'
import { pack } from './parcel.ts'
import type { Parcel } from './parcel.ts'

/** Values that may be under way to the caller, or wait there to be taken. */
export const progressWindow = 64

/**
 * The task's side. As long as the caller has not taken 64 values, each further one takes the place of the one before it:
 * a caller that is slow or does not listen costs no memory, and gets the newest at the latest when the task ends.
 */
export class ProgressSender {
  readonly #words: CallWords
  readonly #post: (value: Parcel) => void
  readonly #refusal: (value: unknown, cause: unknown) => Error
  #sent = 0
  #held: Parcel | undefined

  /** `refusal` says that a value cannot cross: what `send` throws then. */
  constructor(words: CallWords, post: (value: Parcel) => void, refusal: (value: unknown, cause: unknown) => Error) {
    this.#words = words
    this.#post = post
    this.#refusal = refusal
  }

  send(value: unknown): void {
    try {
      const parcel = pack(value)
      if (this.#sent - taken(this.#words) >= progressWindow) {
        this.#held = snapshot(parcel)
        return
      }
      this.#post(parcel)
    } catch (cause) {
      throw this.#refusal(value, cause)
    }
    this.#held = undefined
    this.#sent++
  }

  /** Before the reply. */
  end(): void {
    const held = this.#held
    this.#held = undefined
    if (held) this.#post(held)
  }
}

/** What is held is what was told, whatever the task does with it meanwhile; and it can cross. */
function snapshot(parcel: Parcel): Parcel {
  const { value } = parcel
  const isPlain = typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'symbol'
  return isPlain || value === null ? parcel : structuredClone(parcel)
}

/** The caller's side: what has come and was not taken. One reader takes each value once. */
export class ProgressReader implements AsyncIterable<unknown> {
  readonly #words: CallWords
  readonly #onReader: () => void
  readonly #values: unknown[] = []
  #reader: Deferred<void> | undefined
  #ended = false

  /** `onReader` is told when somebody begins to read. */
  constructor(words: CallWords, onReader: () => void) {
    this.#words = words
    this.#onReader = onReader
  }

  push(value: unknown): void {
    this.#values.push(value)
    this.#wake()
  }

  end(): void {
    this.#ended = true
    this.#wake()
  }

  [Symbol.asyncIterator](): AsyncGenerator<unknown, void, undefined> {
    this.#onReader()
    return this.#read()
  }

  async *#read(): AsyncGenerator<unknown, void, undefined> {
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
