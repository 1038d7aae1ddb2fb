import { PoolError, optionTypeError } from '../errors.ts'
import { duration, onlyKnown, shown } from '../options.ts'
import type { PostgresPool } from '../postgres/index.ts'

export interface CheckOptions {
  /**
   * For everything: the wait for a connection, and the query. In ms.
   * @default 2_000
   */
  timeoutMs?: number
}

export interface CheckResult {
  /** From the call to the answer. */
  readonly durationMs: number
  /** The wait for a connection, as far as it goes. */
  readonly waitedMs: number
}

/** One real round trip: takes a lease, asks the server, gives the lease back. Rejects when that fails or is late. */
export async function roundTrip(pool: PostgresPool, options: CheckOptions = {}): Promise<CheckResult> {
  const timeoutMs = checkTimeout('options', options)
  const startedAt = performance.now()
  const lease = await pool.acquire({ timeoutMs })
  const waitedMs = performance.now() - startedAt
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const error = new PoolError(
      'ERR_CHECK_TIMEOUT',
      `The database did not answer within ${timeoutMs} ms; the wait for a connection took ${Math.round(waitedMs)} of them.`,
    )
    timer = setTimeout(() => reject(error), Math.max(0, timeoutMs - waitedMs))
  })
  try {
    await Promise.race([lease.sql`select 1`, late])
  } catch (error) {
    // A connection that does not answer is of no use; to see its end may take as long again.
    lease.destroy('it did not answer a check').catch(() => undefined)
    throw error
  } finally {
    clearTimeout(timer)
  }
  await lease.release()
  return { durationMs: performance.now() - startedAt, waitedMs }
}

/** Checks options of a check. `option` is what they are called. */
export function checkTimeout(option: string, options: unknown): number {
  if (typeof options !== 'object' || options === null) {
    throw optionTypeError(
      option,
      `${option} must be { timeoutMs }${option === 'check' ? ', true or false' : ''}: got ${shown(options)}.`,
    )
  }
  onlyKnown(options, ['timeoutMs'], 'a check')
  return duration('timeoutMs', (options as CheckOptions).timeoutMs, 2_000, { from: 1 })
}
