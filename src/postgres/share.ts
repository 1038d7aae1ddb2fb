import type { Clock } from '../clock.ts'
import { DeadlineError } from '../deadline.ts'

/** A part of an attempt's time, for one of several servers. */
export class Share {
  readonly signal: AbortSignal
  readonly end: () => void

  constructor(clock: Clock, ms: number, whole: AbortSignal) {
    const own = new AbortController()
    const timer = clock.setTimer(() => own.abort(new DeadlineError(`No answer within ${Math.round(ms)} ms`)), ms)
    const onAbort = (): void => own.abort(whole.reason)
    if (whole.aborted) onAbort()
    else whole.addEventListener('abort', onAbort, { once: true })
    this.signal = own.signal
    this.end = () => {
      timer.cancel()
      whole.removeEventListener('abort', onAbort)
    }
  }
}
