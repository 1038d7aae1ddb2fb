import type { Connection } from './connection.ts'
import { TargetError } from './target.ts'
import type { TargetSessionAttrs } from './target.ts'

const askServer = `
  select pg_catalog.pg_is_in_recovery()::text as standby,
    pg_catalog.current_setting('transaction_read_only') as read_only`

/** Asks a new session whether its server is as wanted; rejects with a `TargetError` if not. */
export async function checkTarget(
  connection: Connection,
  target: Exclude<TargetSessionAttrs, 'prefer-standby'>,
  signal: AbortSignal,
): Promise<void> {
  if (target === 'any') return
  const [row] = await connection.ask(askServer, [], signal)
  const standby = row?.['standby'] === 'true'
  const readOnly = standby || row?.['read_only'] === 'on'
  const fits = { 'read-write': !readOnly, 'read-only': readOnly, primary: !standby, standby }[target]
  if (fits) return
  const found = standby ? 'a standby' : `a primary${readOnly ? ' whose sessions are read-only' : ''}`
  throw new TargetError(`the server is ${found}, and target_session_attrs asks for '${target}'`)
}
