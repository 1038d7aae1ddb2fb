import type { Transferable } from 'node:worker_threads'
import { heed } from '../deadline.ts'
import { TaskError, optionTypeError } from '../errors.ts'
import { duration, fn, onlyKnown, shown } from '../options.ts'
import { createCallWords, countTaken, giveUp, threadOf } from './abort.ts'
import { culpritIn } from './clone.ts'
import { pack, unpack } from './parcel.ts'
import type { Parcel, TaskReply } from './parcel.ts'
import { TaskTimeoutError } from './errors.ts'
import type { Send, Sent, TaskRequest } from './job.ts'
import type { RunOptions, TaskRun } from './modules.ts'
import { ProgressReader } from './progress.ts'
import { fromWire } from './wire.ts'

const optionNames = ['signal', 'timeoutMs', 'transfer', 'priority', 'onProgress']

/** Calls a task from any thread, and watches over the caller's signal and deadline there. */
export function callTask(send: Send, task: string, input: unknown, options: RunOptions = {}): TaskRun<unknown> {
  const words = createCallWords()
  // Whoever reads it awaits the result when the loop is over, and by then it may have failed long ago.
  const progress = new ProgressReader(words, () => void result.catch(() => undefined))
  const result: Promise<unknown> = new Promise((resolve, reject) => {
    let sent: Sent | undefined
    let timer: NodeJS.Timeout | undefined
    const end = (): void => {
      clearTimeout(timer)
      options.signal?.removeEventListener('abort', onAbort)
      progress.end()
    }
    const leave = (because: 'aborted' | 'timeout', reason: unknown): void => {
      reject(reason)
      giveUp(words, because)
      sent?.giveUp()
      end()
    }
    const onAbort = (): void => leave('aborted', options.signal?.reason)
    const fail = (error: unknown): void => {
      end()
      reject(error)
    }
    const tell = (value: Parcel): void => {
      if (!options.onProgress) return progress.push(unpack(value))
      countTaken(words)
      try {
        options.onProgress(unpack(value))
      } catch (error) {
        leave('aborted', error)
      }
    }
    const answer = (reply: TaskReply): void => {
      end()
      resolve(unwrap(reply, task))
    }
    try {
      const { signal, timeoutMs, transfer, priority } = checked(options)
      signal?.throwIfAborted()
      sent = sendOr(send, { task, input: pack(input, transfer), words, priority }, tell)
      if (signal) heed(signal, onAbort)
      if (timeoutMs !== Infinity) {
        timer = setTimeout(() => {
          leave('timeout', new TaskTimeoutError(task, timeoutMs, threadOf(words) === 0 ? 'queue' : 'run'))
        }, timeoutMs)
      }
      sent.reply.then(answer).catch(fail)
    } catch (error) {
      progress.end()
      reject(error)
    }
  })
  return Object.assign(result, { progress })
}

interface Checked {
  readonly signal: AbortSignal | undefined
  readonly timeoutMs: number
  readonly transfer: readonly Transferable[]
  readonly priority: number
}

function checked(options: RunOptions): Checked {
  onlyKnown(options, optionNames, 'run()')
  const { signal, transfer = [], priority = 0, onProgress } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw optionTypeError('signal', `signal must be an AbortSignal: got ${shown(signal)}.`)
  }
  if (!Array.isArray(transfer)) throw optionTypeError('transfer', `transfer must be an array: got ${shown(transfer)}.`)
  if (!Number.isFinite(priority))
    throw optionTypeError('priority', `priority must be a number: got ${shown(priority)}.`)
  if (onProgress !== undefined) fn('onProgress', onProgress)
  const timeoutMs = duration('timeoutMs', options.timeoutMs, Infinity, { endless: true })
  return { signal, timeoutMs, transfer, priority }
}

function sendOr(send: Send, request: TaskRequest, tell: (value: Parcel) => void): Sent {
  try {
    return send(request, tell)
  } catch (error) {
    throw isCloneError(error) ? cannotCross(request, error) : error
  }
}

export function isCloneError(error: unknown): boolean {
  return error instanceof Error && error.name === 'DataCloneError'
}

/** The input of a task that structured clone refuses. */
export function cannotCross({ task, input }: TaskRequest, cause: unknown): TaskError {
  const culprit = culpritIn(input.value, input.transfer)
  return new TaskError(task, `The input of task "${task}" cannot cross threads: ${culprit}.`, { cause })
}

/** What a reply says, as a function would: its value, or it throws. */
function unwrap(reply: TaskReply, task: string): unknown {
  if (reply.ok) return unpack(reply.value)
  const error = fromWire(reply.error)
  if (error instanceof Error) throw error
  throw new TaskError(task, `The task "${task}" threw something that is no error: ${String(error)}`, { cause: error })
}

/** Aborts with any of the two. What is no signal stays what it is, for `callTask` to refuse. */
export function either(own: AbortSignal | undefined, other: AbortSignal): AbortSignal {
  if (own === undefined) return other
  return own instanceof AbortSignal ? AbortSignal.any([own, other]) : own
}
