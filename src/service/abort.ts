/**
 * What both sides of one call share, since a thread that computes reads no messages.
 *
 *   0  go on, stop (the caller has given up), late (its time is over), or over (the task is)
 *   1  the thread that runs it; 0 before that
 *   2  how many of its progress values the caller has taken
 */
export type CallWords = Int32Array

const goOn = 0
const stop = 1
const late = 2
const over = 3

const wordsPerCall = 3
/** Shared memory is dear to make: there is one for so many calls. None gets the words of an earlier one. */
const callsPerSlab = 64
let slab: SharedArrayBuffer | undefined
let used = 0

export function createCallWords(): CallWords {
  if (!slab || used === callsPerSlab) {
    slab = new SharedArrayBuffer(callsPerSlab * wordsPerCall * Int32Array.BYTES_PER_ELEMENT)
    used = 0
  }
  return new Int32Array(slab, used++ * wordsPerCall * Int32Array.BYTES_PER_ELEMENT, wordsPerCall)
}

/** Words as they cross to a thread: their memory crosses with the first of them, then a number says where in it they are. */
export type SentWords = CallWords | number

export function sentWords(words: CallWords, known: ArrayBufferLike | undefined): SentWords {
  return words.buffer === known ? words.byteOffset : words
}

export function receivedWords(sent: SentWords, known: ArrayBufferLike | undefined): CallWords {
  if (typeof sent !== 'number') return sent
  if (!known) throw new Error('bug: words of a call without their memory')
  return new Int32Array(known, sent, wordsPerCall)
}

/** The caller gives up; `because` it wanted to, or since its time is over. */
export function giveUp(words: CallWords, because: 'aborted' | 'timeout'): void {
  Atomics.compareExchange(words, 0, goOn, because === 'timeout' ? late : stop)
  Atomics.notify(words, 0)
}

export function isGivenUp(words: CallWords): boolean {
  const state = Atomics.load(words, 0)
  return state === stop || state === late
}

/** The thread that runs the call, or 0. */
export function threadOf(words: CallWords): number {
  return Atomics.load(words, 1)
}

export function countTaken(words: CallWords): void {
  Atomics.add(words, 2, 1)
}

export function taken(words: CallWords): number {
  return Atomics.load(words, 2)
}

/** The task's side of its words. */
export class Abortable {
  readonly #words: CallWords
  #controller: AbortController | undefined

  /** `thread` tells that it has begun, and where: anything but 0. */
  constructor(words: CallWords, thread: number) {
    this.#words = words
    Atomics.store(words, 1, thread)
  }

  /** Waits for the word only once somebody has asked for it. */
  get signal(): AbortSignal {
    if (this.#controller) return this.#controller.signal
    const controller = new AbortController()
    this.#controller = controller
    const wait = Atomics.waitAsync(this.#words, 0, goOn)
    if (wait.async) void wait.value.then(() => this.#look())
    else this.#look()
    return controller.signal
  }

  get aborted(): boolean {
    return isGivenUp(this.#words)
  }

  throwIfAborted(): void {
    if (!this.aborted) return
    const { signal } = this
    this.#look()
    signal.throwIfAborted()
  }

  /** The task is over: nobody waits for the word any more. */
  end(): void {
    Atomics.compareExchange(this.#words, 0, goOn, over)
    if (this.#controller) Atomics.notify(this.#words, 0)
  }

  #look(): void {
    if (!this.aborted) return
    const isLate = Atomics.load(this.#words, 0) === late
    this.#controller?.abort(isLate ? new DOMException('The time of the task is over', 'TimeoutError') : undefined)
  }
}
