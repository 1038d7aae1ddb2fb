import { systemClock } from '../clock.ts'
import { withinDeadline } from '../deadline.ts'
import { ConnectError, LimitError, messageOf, optionRangeError, optionTypeError } from '../errors.ts'
import { duration, onlyKnown } from '../options.ts'
import type { Connection } from './connection.ts'
import type { PostgresLease } from './lease.ts'
import { readNumbers } from './limit-numbers.ts'
import type { Asked } from './limit-numbers.ts'
import { sumUp } from './limit-sum.ts'
import type { LimitCheck, LimitNumbers } from './limit-sum.ts'
import { Opener } from './open.ts'
import { parseOptions } from './options.ts'
import type { PostgresPoolOptions } from './options.ts'
import { Template } from './template.ts'
import type { Types } from './sql.ts'

/** What becomes of a limit that does not fit. */
export type OnMisfit = 'throw' | 'warn' | 'ignore'

export interface CheckLimitOptions<T extends Types = {}> {
  /**
   * `'throw'`: one that can never be had is a `LimitError`, a tight one a warning (`process.emitWarning`, once).
   * `'warn'`: both are warnings. `'ignore'`: neither; the result tells.
   * @default 'throw'
   */
  onMisfit?: OnMisfit
  /**
   * For all of it: connecting and asking, in ms.
   * @default 10_000
   */
  timeoutMs?: number
  /** Ends it; it then rejects with the signal's own reason. */
  signal?: AbortSignal
  /** The pool's options, as far as they say where and as whom it connects. */
  pool?: PostgresPoolOptions<T>
}

/**
 * The limit to check: a broker, what `pool.stats().broker` tells of one, or a number. The sessions of a broker that this
 * thread sees are not others' sessions; for a number, all sessions are.
 */
export type CheckedLimit = number | { readonly limit: number; readonly name?: string }

const defaultTimeoutMs = 10_000
/** What the connection is given to close after an abort. */
const graceMs = 400
const misfits: readonly OnMisfit[] = ['throw', 'warn', 'ignore']
const known: readonly (keyof CheckLimitOptions)[] = ['onMisfit', 'timeoutMs', 'signal', 'pool']

/** What this thread has warned of. */
const warned = new Set<string>()
let checks = 0

/**
 * Asks the server whether a limit can be had: `max_connections` less what is reserved, the CONNECTION LIMIT of the role
 * and of the database, and what others use of them now. Opens one short connection of its own, beside those that the
 * limit counts, and closes it in every case.
 *
 * Resolves with the sum and all its numbers, frozen. Rejects with `LimitError` (`ERR_LIMIT_MISFIT`) if the limit can
 * never be had, with `ConnectError` (`ERR_CONNECT`) if the server cannot be reached, is full, or does not tell within
 * `timeoutMs`, with the signal's reason, and with `ERR_OPTION` for a wrong argument.
 *
 * @example
 * ```ts
 * import { createBroker } from 'millpond'
 * import { checkLimit } from 'millpond/postgres'
 *
 * const broker = createBroker({ name: 'orders', limit: 20 })
 * const { fits, room, sum } = await checkLimit(process.env.DATABASE_URL, broker)
 * console.log(fits, room, sum)
 * await broker.close()
 * ```
 */
export async function checkLimit<T extends Types = {}>(
  url: string | URL | undefined,
  broker: CheckedLimit,
  options: CheckLimitOptions<T> = {},
): Promise<LimitCheck> {
  const { limit, name } = limitOf(broker)
  const { onMisfit, timeoutMs, signal } = checked(options)
  const settings = parseOptions(url, options.pool)
  const opener = new Opener(settings, new Template(settings))
  signal?.throwIfAborted()
  const read = async (aborted: AbortSignal): Promise<LimitNumbers> => {
    // Looks like one of ours to those who look for sessions without a tag.
    const connection = await opener.open(`mpcheck-${process.pid.toString(36)}-${(++checks).toString(36)}`, aborted)
    try {
      return await readNumbers(asked(connection, aborted), name)
    } finally {
      await connection.end(aborted.aborted ? AbortSignal.timeout(graceMs) : aborted).catch(nothing)
    }
  }
  const numbers = await withinDeadline(read, { clock: systemClock, ms: timeoutMs, ...(signal && { signal }) }).catch(
    (cause: unknown) => {
      signal?.throwIfAborted()
      if (cause instanceof ConnectError) throw cause
      throw new ConnectError(`Cannot check the limit: "${settings.serverName}" did not tell: ${messageOf(cause)}`, {
        cause,
      })
    },
  )
  return judged(sumUp(limit, numbers), settings.serverName, onMisfit)
}

/**
 * The same through a lease of a pool under the limit, so that no connection is opened beside those that it counts.
 * Rejects also with what the query rejects with, and with a `DeadlineError`: the lease is of no more use then.
 */
export async function checkLimitThrough(
  lease: PostgresLease,
  { limit, name }: { readonly limit: number; readonly name: string },
): Promise<LimitCheck> {
  const read = (): Promise<LimitNumbers> => readNumbers(lent(lease), name)
  const numbers = await withinDeadline(read, { clock: systemClock, ms: defaultTimeoutMs })
  return judged(sumUp(limit, numbers), name, 'throw')
}

function asked(connection: Connection, signal: AbortSignal): Asked {
  return {
    ask: async (text, parameters) => ({
      rows: await connection.ask(text, parameters, signal),
      pid: connection.identity.pid,
    }),
  }
}

function lent(lease: PostgresLease): Asked {
  return {
    async ask(text, parameters) {
      const query = lease.sql.unsafe(text, [...parameters])
      const rows = await query
      const { runsOn } = query as unknown as { readonly runsOn: Connection }
      return { rows, pid: runsOn.identity.pid }
    },
  }
}

function judged(check: LimitCheck, server: string, onMisfit: OnMisfit): LimitCheck {
  const { fits, limit, numbers, sum, advice } = check
  if (fits === 'yes' || onMisfit === 'ignore') return check
  if (fits === 'no' && onMisfit === 'throw') throw new LimitError(server, check)
  const key = `${fits} ${limit} ${server}`
  if (!warned.has(key)) {
    warned.add(key)
    const when =
      fits === 'no'
        ? 'can never be had'
        : numbers.proxy
          ? 'is more than the server behind a proxy has room for'
          : 'cannot be had now'
    process.emitWarning(
      `The limit of ${limit} for "${server}" ${when}: ${sum}. ${advice.join(' ')}`.trimEnd(),
      'MillpondWarning',
    )
  }
  return check
}

function limitOf(broker: unknown): { limit: number; name: string | undefined } {
  const whole = 'broker must be a broker, or a limit: a whole number from 1'
  const { limit, name }: { limit?: unknown; name?: unknown } =
    typeof broker === 'object' && broker !== null ? broker : { limit: broker }
  if (typeof limit !== 'number') throw optionTypeError('broker', `${whole}: got ${typeof limit}.`)
  if (!Number.isInteger(limit) || limit < 1) throw optionRangeError('broker', `${whole}: got ${limit}.`)
  return { limit, name: typeof name === 'string' ? name : undefined }
}

function checked<T extends Types>(
  options: CheckLimitOptions<T>,
): {
  onMisfit: OnMisfit
  timeoutMs: number
  signal: AbortSignal | undefined
} {
  onlyKnown(options, known)
  const { onMisfit = 'throw', timeoutMs, signal } = options
  if (!misfits.includes(onMisfit)) {
    throw optionTypeError('onMisfit', `onMisfit must be ${misfits.map((one) => `'${one}'`).join(' or ')}.`)
  }
  return { onMisfit, timeoutMs: duration('timeoutMs', timeoutMs, defaultTimeoutMs, { from: 1 }), signal }
}

function nothing(): void {}
