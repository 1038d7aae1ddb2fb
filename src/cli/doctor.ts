import { checkLimit, createPool } from '../postgres/index.ts'
import type { LimitNumbers } from '../postgres/index.ts'
import { parseOptions } from '../postgres/options.ts'
import { taggedName } from '../postgres/reap.ts'
import { reportOf } from './report.ts'
import type { Diagnosis } from './report.ts'

export interface DoctorFlags {
  readonly limit: number
  readonly timeoutMs: number
  readonly json?: boolean
}

/** Prints whether a limit fits. Returns whether it does. */
export async function doctor(given: string | undefined, { limit, timeoutMs, json }: DoctorFlags): Promise<boolean> {
  const url = given ?? (process.env['DATABASE_URL'] || undefined)
  const { serverName } = parseOptions(url)
  const check = await checkLimit(url, limit, { onMisfit: 'ignore', timeoutMs })
  const own = check.numbers.others.server > 0 ? await ownSessions(url, timeoutMs) : none
  const diagnosis: Diagnosis = { server: serverName, ...check, ...(own && { millpond: own }) }
  process.stdout.write(json ? `${JSON.stringify(diagnosis, null, 2)}\n` : reportOf(diagnosis))
  return check.fits === 'yes'
}

const none: LimitNumbers['others'] = { server: 0, role: 0, database: 0 }

/** How many of the others' sessions are those of pools like ours, in whatever process. Undefined if it cannot be had. */
async function ownSessions(url: string | undefined, timeoutMs: number): Promise<LimitNumbers['others'] | undefined> {
  const pool = createPool(url, { name: 'doctor', max: 1, acquireTimeoutMs: timeoutMs, queryTimeoutMs: timeoutMs })
  try {
    const [row] = await pool.sql<LimitNumbers['others'][]>`
      select
        count(*)::int as server,
        (count(*) filter (where usename = session_user))::int as role,
        (count(*) filter (where datname = pg_catalog.current_database()))::int as database
      from pg_catalog.pg_stat_activity
      where pid <> pg_catalog.pg_backend_pid()
        and application_name ~ ${taggedName}`
    return row && { ...row }
  } catch {
    // The sum stands without it. What was wrong is in the pool's events.
    return undefined
  } finally {
    await pool.close()
  }
}
