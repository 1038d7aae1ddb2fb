import postgres from 'postgres'
import type { Identity } from '../driver.ts'
import { ConnectError } from '../errors.ts'
import type { Connection } from './connection.ts'
import type { Opener } from './open.ts'
import { reap } from './reap.ts'

/** How long a server is asked that may be gone, while another one may serve. */
const patienceMs = 4_000
const graceMs = 1_000

/**
 * As `reap`, where the session may be on one of several servers: each that may have it is asked. One that cannot be
 * reached while another serves counts as gone, with its sessions; else a failover would take all permits with it.
 */
export async function reapEverywhere(
  opener: Opener,
  identity: Identity,
  { via, signal }: { via: Connection | undefined; signal: AbortSignal },
): Promise<boolean> {
  if (opener.settings.addresses.length === 1) return reap(opener, identity, { via, signal })
  let answered = false
  for (const address of opener.whereabouts(identity.tag)) {
    const here = via && opener.addressOf(via) === address ? via : undefined
    const patience = here ? signal : AbortSignal.any([signal, AbortSignal.timeout(patienceMs)])
    try {
      if (!(await reap(opener.at(address), identity, { via: here, signal: patience }))) return false
      answered = true
    } catch (error) {
      if (signal.aborted || !(patience.aborted || isUnreachable(error))) throw error
    }
  }
  if (!answered && !via) await findAnother(opener, identity, signal)
  opener.forget(identity.tag)
  return true
}

/** Whoever answers at all may have the session. */
function isUnreachable(error: unknown): boolean {
  return error instanceof ConnectError && !(error.cause instanceof postgres.PostgresError)
}

/** Resolves if some server will do, which a connection in place of the one in doubt shows. */
async function findAnother(opener: Opener, { tag }: Identity, signal: AbortSignal): Promise<void> {
  const another = await opener.open(`${tag}.r`, signal)
  await another.end(signal.aborted ? AbortSignal.timeout(graceMs) : signal)
  opener.forget(`${tag}.r`)
}
