import { onSignals } from './signals.ts'

export interface CloseOnSignalOptions {
  /**
   * Which signals. A second one ends the process at once.
   * @default ['SIGTERM', 'SIGINT']
   */
  signals?: readonly NodeJS.Signals[]
  /** Comes before the pool is closed: stop accepting, finish what is under way. */
  before?: () => unknown
}

/**
 * Closes a pool, or anything else that has a `close()`, when the process is asked to end, and ends the process then:
 * with its exit code, or 1 if closing failed. Returns what takes the listeners away again.
 *
 * @example
 * ```ts
 * import { createServer } from 'node:http'
 * import { closeOnSignal } from 'millpond'
 * import { createPool } from 'millpond/postgres'
 *
 * const pool = createPool(process.env.DATABASE_URL)
 * const server = createServer()
 * closeOnSignal(pool, { before: () => server.close() })
 * ```
 */
export function closeOnSignal(
  pool: { close(): Promise<unknown> },
  { signals = ['SIGTERM', 'SIGINT'], before }: CloseOnSignalOptions = {},
): () => void {
  return onSignals(signals, async () => {
    try {
      await before?.()
    } finally {
      await pool.close()
    }
  })
}
