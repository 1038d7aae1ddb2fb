import { setMaxListeners } from 'node:events'
import type { Clock } from './clock.ts'
import { setDeadline } from './deadline-timer.ts'

/** What a call is given to notice its deadline itself, before it is left behind. */
const graceMs = 500

/** The call did not settle in time, nor in the grace after its signal. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError'
}

const heeded = new WeakSet<AbortSignal>()

/**
 * Listens to a user's signal. It may be a whole request's, with many who wait under it at a time; each takes its listener
 * away, so that there is nothing to warn of.
 */
export function heed(signal: AbortSignal, listener: Parameters<AbortSignal['addEventListener']>[1]): void {
  if (!heeded.has(signal)) {
    heeded.add(signal)
    setMaxListeners(0, signal)
  }
  signal.addEventListener('abort', listener, { once: true })
}

/** A promise's outcome, or the signal's reason, whichever comes first. */
export function orAborted<T>(promise: PromiseLike<unknown>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return Promise.resolve(promise as PromiseLike<T>)
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    const off = (): void => signal?.removeEventListener('abort', onAbort)
    promise.then(
      (value) => {
        off()
        resolve(value as T)
      },
      (error: unknown) => {
        off()
        reject(error)
      },
    )
    if (signal?.aborted) onAbort()
  })
}

export interface DeadlineOptions<T> {
  clock: Clock
  ms: number
  /** Whether waiting keeps the process alive. Default: true */
  keepAlive?: boolean
  /** Another reason to stop. */
  signal?: AbortSignal
  /** What becomes of an outcome that comes after the call was left behind. */
  late?: { resolved(value: T): void; rejected(error: unknown): void }
}

/**
 * Calls something that may never settle. Its signal aborts at the deadline, so that it can reject by itself and say
 * more; if it does not, this rejects with a `DeadlineError` soon after. A call that throws counts as one that rejects.
 */
export function withinDeadline<T>(call: (signal: AbortSignal) => Promise<T>, options: DeadlineOptions<T>): Promise<T> {
  const { clock, ms, keepAlive = true, signal, late } = options
  return new Promise<T>((resolve, reject) => {
    const controller = new AbortController()
    let left = false
    const stop = (reason: unknown): void => {
      timer.cancel()
      controller.abort(reason)
      timer = clock.setTimer(
        () => {
          left = true
          reject(new DeadlineError(`It did not settle within ${ms} ms`))
        },
        graceMs,
        keepAlive,
      )
    }
    const onAbort = (): void => stop(signal?.reason)
    const due = (): void => stop(new DeadlineError(`It did not settle within ${ms} ms`))
    let timer = setDeadline(clock, clock.now() + ms, due, keepAlive)
    const settled = (): void => {
      timer.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
    let promise: Promise<T>
    try {
      promise = Promise.resolve(call(controller.signal))
    } catch (error) {
      promise = Promise.reject(error)
    }
    promise.then(
      (value) => {
        if (left) return late?.resolved(value)
        settled()
        resolve(value)
      },
      (error: unknown) => {
        if (left) return late?.rejected(error)
        settled()
        reject(error)
      },
    )
    if (signal?.aborted) onAbort()
    else signal?.addEventListener('abort', onAbort, { once: true })
  })
}
