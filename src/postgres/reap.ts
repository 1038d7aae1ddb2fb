import { setTimeout as sleep } from 'node:timers/promises'
import type { Identity } from '../driver.ts'
import { sendCancelRequest } from './cancel.ts'
import type { Connection } from './connection.ts'
import type { Opener } from './open.ts'

/** How long a server may take to end a session that was asked to, before a connection in its place is risked. */
const graceMs = 1_000
const firstPauseMs = 2
const longestPauseMs = 50

/** The tag of a connection that reaps: found again by whoever reaps after it, should it be lost as well. */
function reaperTag(tag: string): string {
  return `${tag}.r`
}

// A name is cut at 63 bytes with the tag at its end, so its end tells; the pid tells sessions of one tag apart.
const endAndCount = `
  select count(pg_catalog.pg_terminate_backend(pid))::text as found
  from pg_catalog.pg_stat_activity
  where pid <> pg_catalog.pg_backend_pid()
    and ((right(application_name, length($1) + 1) = ' ' || $1 and $3::text in ('0', pid::text))
      or right(application_name, length($2) + 1) = ' ' || $2)`

/**
 * Ends a session whose end nobody saw, and resolves with true once the server does not list it any more. `via` is a
 * connection lent for this; without one it opens its own, in place of the one it ends.
 */
export async function reap(
  opener: Opener,
  identity: Identity,
  { via, signal }: { via: Connection | undefined; signal: AbortSignal },
): Promise<boolean> {
  if (via) return endSession(via, identity, signal)
  if (identity.pid !== 0) {
    // Best effort: a server that does not answer now is asked again below.
    await sendCancelRequest(opener.settings.address, identity, signal).catch(() => undefined)
  }
  await sleep(graceMs, undefined, { signal })
  const connection = await opener.open(reaperTag(identity.tag), signal)
  let ended = false
  try {
    ended = await endSession(connection, identity, signal)
  } finally {
    // Counts in place of the one it has ended: without evidence of its own end, nothing is won.
    await connection.end(signal)
  }
  return ended
}

async function endSession(via: Connection, { pid, tag }: Identity, signal: AbortSignal): Promise<boolean> {
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
    const [row] = await via.ask(endAndCount, [tag, reaperTag(tag), String(pid)], signal)
    if (row?.['found'] === '0') return true
    await sleep(pauseMs, undefined, { signal })
  }
}
