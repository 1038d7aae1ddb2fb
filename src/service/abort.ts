/** An abort that reaches a thread also while it computes: one word in shared memory. 0: go on, 1: stop, 2: over. */
export type AbortWord = Int32Array

const stop = 1
const over = 2

export function createAbortWord(): AbortWord {
  return new Int32Array(new SharedArrayBuffer(4))
}

/** The caller gives up. */
export function abort(word: AbortWord): void {
  Atomics.store(word, 0, stop)
  Atomics.notify(word, 0)
}

/** The other side of an abort word. */
export class Abortable {
  readonly #word: AbortWord | undefined
  readonly #controller = new AbortController()

  constructor(word: AbortWord | undefined) {
    this.#word = word
    if (!word) return
    const wait = Atomics.waitAsync(word, 0, 0)
    const seen = (): void => {
      if (Atomics.load(word, 0) === stop) this.#controller.abort()
    }
    if (wait.async) void wait.value.then(seen)
    else seen()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get aborted(): boolean {
    return this.#word !== undefined && Atomics.load(this.#word, 0) === stop
  }

  throwIfAborted(): void {
    if (this.aborted) this.#controller.abort()
    this.#controller.signal.throwIfAborted()
  }

  /** The task is over: nobody waits for the word any more. */
  end(): void {
    if (!this.#word) return
    Atomics.compareExchange(this.#word, 0, 0, over)
    Atomics.notify(this.#word, 0)
  }
}
