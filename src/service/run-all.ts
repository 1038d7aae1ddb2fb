import { heed } from '../deadline.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { optionRangeError, optionTypeError } from '../errors.ts'
import { onlyKnown } from '../options.ts'
import type { RunAllOptions, RunOptions } from './modules.ts'

type Input = Iterable<unknown> | AsyncIterable<unknown>
type RunOne = (input: unknown, options: RunOptions) => Promise<unknown>

/** One input's way: taken, settled, yielded. */
interface Item {
  settled: boolean
  failed: boolean
  value: unknown
}

/**
 * Runs one task for each input, and yields the results. No more than `concurrency` inputs are taken that have not been
 * yielded, so a slow consumer slows the source down.
 */
export async function* runAll(
  runOne: RunOne,
  inputs: Input,
  { concurrency, order, signal, ...options }: RunAllOptions & { readonly concurrency: number },
): AsyncGenerator<unknown, void, undefined> {
  const stop = new AbortController()
  const onAbort = (): void => stop.abort(signal?.reason)
  if (signal) heed(signal, onAbort)
  if (signal?.aborted) onAbort()
  const source = iterate(inputs)
  /** Taken and not yielded, in the order of their inputs. */
  const window: Item[] = []
  let exhausted = false
  let failure: { readonly error: unknown } | undefined
  let wake: Deferred<void> = deferred<void>()
  let taking = false
  const changed = (): void => {
    const waiting = wake
    wake = deferred<void>()
    waiting.resolve()
  }
  const start = (input: unknown): void => {
    const item: Item = { settled: false, failed: false, value: undefined }
    window.push(item)
    const settle = (failed: boolean) => (value: unknown) => {
      Object.assign(item, { settled: true, failed, value })
      changed()
    }
    runOne(input, { ...options, signal: stop.signal }).then(settle(false), settle(true))
  }
  const take = async (): Promise<void> => {
    taking = true
    try {
      const next = await source.next()
      if (next.done) exhausted = true
      else if (!stop.signal.aborted) start(next.value)
    } catch (error) {
      failure ??= { error }
      exhausted = true
    }
    taking = false
    changed()
  }
  const ready = (): number =>
    order === 'completion' ? window.findIndex((item) => item.settled) : window[0]?.settled ? 0 : -1
  const aborted = (): void => {
    failure ??= { error: stop.signal.reason }
    changed()
  }
  stop.signal.addEventListener('abort', aborted, { once: true })
  if (stop.signal.aborted) aborted()
  try {
    for (;;) {
      if (failure) throw failure.error
      const at = ready()
      const [item] = at < 0 ? [] : window.splice(at, 1)
      if (item?.failed) throw item.value
      if (item) {
        if (!exhausted && !taking) void take()
        yield item.value
        continue
      }
      if (exhausted && window.length === 0) return
      const waiting = wake.promise
      if (!exhausted && !taking && window.length < concurrency) {
        void take()
      }
      await waiting
    }
  } finally {
    signal?.removeEventListener('abort', onAbort)
    stop.abort(new DOMException('Nobody takes the results any more', 'AbortError'))
    // A source that is waiting for something ends when it has it.
    if (!exhausted) void Promise.resolve(source.return?.()).catch(() => undefined)
  }
}

function iterate(inputs: Input): Iterator<unknown> | AsyncIterator<unknown> {
  return Symbol.asyncIterator in inputs ? inputs[Symbol.asyncIterator]() : inputs[Symbol.iterator]()
}

const optionNames = ['signal', 'timeoutMs', 'priority', 'concurrency', 'order']

/** Checks what the compiler cannot, and fills in the default. */
export function runAllOptions(
  inputs: unknown,
  options: RunAllOptions,
  capacity: number,
): RunAllOptions & { readonly concurrency: number } {
  if (typeof inputs !== 'object' || inputs === null || !(Symbol.iterator in inputs || Symbol.asyncIterator in inputs)) {
    throw optionTypeError('inputs', 'inputs must be an iterable, or an async one.')
  }
  onlyKnown(options, optionNames, 'runAll()')
  const { concurrency = capacity, order = 'input' } = options
  if (!(concurrency === Infinity || (Number.isInteger(concurrency) && concurrency >= 1))) {
    throw optionRangeError('concurrency', `concurrency must be a whole number from 1: got ${String(concurrency)}.`)
  }
  if (order !== 'input' && order !== 'completion') {
    throw optionTypeError('order', `order must be 'input' or 'completion': got ${String(order)}.`)
  }
  return { ...options, concurrency, order }
}
