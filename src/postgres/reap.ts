import { setTimeout as sleep } from 'node:timers/promises'
import type { Identity } from '../driver.ts'
import { sendCancelRequest } from './cancel.ts'
import type { Connection } from './connection.ts'
import type { Opener } from './open.ts'

/** How long a server may take to end a session that was asked to, before a connection in its place is risked. */
const graceMs = 1_000
/**
 * How long a session of which nothing is known may be on its way in: its thread can have died while it logged in, and
 * until it has a name nobody finds it. Where the server shows who is logging in, that is waited for instead.
 */
const loginMs = 1_000
const firstPauseMs = 2
const longestPauseMs = 50

/** What the name of a session with a tag ends in, as a regular expression of the server. */
export const taggedName = ' mp[0-9a-z]+-[0-9a-z]+-[0-9a-z]+([.]r)?$'

/** The tag of a connection that reaps: found again by whoever reaps after it, should it be lost as well. */
function reaperTag(tag: string): string {
  return `${tag}.r`
}

// A name is cut at 63 bytes with the tag at its end, so its end tells; the pid tells sessions of one tag apart. The lease
// may have changed the name, though: a session of our role with that pid and without any tag may be the one. It is
// asked to stop with its own secret, which harms nobody else who has that pid by now, and waited for.
const endAndCount = `
  with session as (
    select pid,
      (right(application_name, length($1) + 1) = ' ' || $1 and $3::text in ('0', pid::text))
        or right(application_name, length($2) + 1) = ' ' || $2 as ours,
      pid::text = $3::text and usename = session_user
        and application_name !~ '${taggedName}' as nameless
    from pg_catalog.pg_stat_activity
    where pid <> pg_catalog.pg_backend_pid()
  )
  select count(case when ours then pg_catalog.pg_terminate_backend(pid) end)::text as found,
    (count(*) filter (where nameless and not ours))::text as nameless,
    (select pg_catalog.string_agg(pid::text, ' ') from pg_catalog.pg_stat_activity where state = 'starting') as starting,
    (pg_catalog.current_setting('server_version_num')::int >= 180000
      and pg_catalog.pg_has_role(session_user, 'pg_read_all_stats', 'usage'))::text as sees
  from session
  where ours or nameless`

/**
 * Ends a session whose end nobody saw, and resolves with true once the server does not list it any more. `via` is a
 * connection lent for this; without one it opens its own, in place of the one it ends.
 */
export async function reap(
  opener: Opener,
  identity: Identity,
  { via, signal }: { via: Connection | undefined; signal: AbortSignal },
): Promise<boolean> {
  const startedAt = performance.now()
  if (via) return endSession(opener, via, { ...identity, startedAt }, signal)
  if (identity.pid !== 0) {
    // Best effort: a server that does not answer now is asked again below.
    await sendCancelRequest(opener.settings.address, identity, signal).catch(() => undefined)
  }
  await sleep(graceMs, undefined, { signal })
  const connection = await opener.open(reaperTag(identity.tag), signal)
  let ended = false
  try {
    ended = await endSession(opener, connection, { ...identity, startedAt }, signal)
  } finally {
    // Counts in place of the one it has ended: without evidence of its own end, nothing is won.
    await connection.end(signal.aborted ? AbortSignal.timeout(graceMs) : signal)
  }
  return ended
}

async function endSession(
  opener: Opener,
  via: Connection,
  identity: Identity & { readonly startedAt: number },
  signal: AbortSignal,
): Promise<boolean> {
  const { pid, tag, startedAt } = identity
  let asked = false
  // Of those that log in: the ones that did so when this began.
  let logins: readonly string[] | undefined
  // A session that was found, or whose pid is known, has got in.
  let gotIn = pid !== 0
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    const [row] = await via.ask(endAndCount, [tag, reaperTag(tag), String(pid)], signal)
    if (row?.['found'] !== '0') gotIn = true
    const list = row?.['starting']
    const starting = typeof list === 'string' ? list.split(' ') : []
    logins = (logins ?? starting).filter((login) => starting.includes(login))
    const mayGetIn = row?.['sees'] === 'true' ? logins.length > 0 : performance.now() - startedAt < loginMs
    if (row?.['found'] === '0' && row['nameless'] === '0' && (gotIn || !mayGetIn)) return true
    if (row?.['nameless'] !== '0' && !asked) {
      asked = true
      await sendCancelRequest(opener.settings.address, identity, signal)
    }
    await sleep(pauseMs, undefined, { signal })
  }
}
