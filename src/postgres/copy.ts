import { settleBy } from './query.ts'
import type { CopyStream, StreamListener, Task } from './task.ts'

/**
 * Keeps an eye on the stream of a COPY. postgres.js forgets it with its last byte, before the server has confirmed it:
 * what the server then says would reach nobody. To it, the query has succeeded when the stream is handed out.
 */
export function keepStream(task: Task, listener: StreamListener): void {
  const { query } = task
  const { resolve, reject } = query
  settleBy(query, {
    resolve: (value) => {
      resolve(value)
      if (!isCopyStream(value)) return
      task.stream = value
      // Whoever waits for it hears of its errors; nobody may be.
      value.on('error', nothing)
      value.on('close', () => listener.closed(task))
      listener.opened(task)
    },
    reject: (error) => {
      // A signal's reason may be anything; without any, the stream would end as if all were well.
      task.stream?.destroy((error || new Error(String(error))) as Error)
      reject(error)
    },
  })
}

function isCopyStream(value: unknown): value is CopyStream {
  return typeof value === 'object' && value !== null && 'destroyed' in value && 'destroy' in value
}

function nothing(): void {}
