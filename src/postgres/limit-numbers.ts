import { getEnvironmentData } from 'node:worker_threads'
import { environmentKey } from '../broker/enrol.ts'
import { read, tagOf } from '../broker/layout.ts'
import type { LimitNumbers } from './limit-sum.ts'

/** A session that can be asked. */
export interface Asked {
  /** The statement's rows, and the number by which the one who logged us in knows this session. */
  ask(text: string, parameters: readonly string[]): Promise<{ rows: readonly Record<string, unknown>[]; pid: number }>
}

/**
 * All as text, which needs no parsers. Who may not look into a session sees neither its state nor its kind, but whose
 * it is, where, and its name: what has both a user and a database is then taken for a client's.
 *
 * $1 is what the tags of our own sessions begin with.
 */
const question = `
  select
    pg_catalog.current_setting('max_connections') as max_connections,
    pg_catalog.current_setting('superuser_reserved_connections') as superuser_reserved,
    pg_catalog.current_setting('reserved_connections', true) as reserved,
    r.rolname::text as role,
    r.rolsuper::text as superuser,
    exists (
      select from pg_catalog.pg_roles p
      where p.rolname = 'pg_use_reserved_connections' and pg_catalog.pg_has_role(r.oid, p.oid, 'USAGE')
    )::text as uses_reserved,
    r.rolconnlimit::text as role_limit,
    d.datname::text as database,
    d.datconnlimit::text as database_limit,
    pg_catalog.pg_backend_pid()::text as pid,
    o.*
  from pg_catalog.pg_roles r
  cross join pg_catalog.pg_database d
  cross join lateral (
    select
      count(*)::text as on_server,
      (count(*) filter (where a.usesysid = r.oid))::text as of_role,
      (count(*) filter (where a.datid = d.oid))::text as on_database
    from pg_catalog.pg_stat_activity a
    where a.pid <> pg_catalog.pg_backend_pid()
      and coalesce(a.backend_type, 'client backend') = 'client backend'
      and a.usesysid is not null and a.datid is not null
      and ($1::text = '' or coalesce(a.application_name, '') !~ (' ' || $1::text || '-[0-9a-z]+-[0-9a-z]+([.]r)?$'))
  ) o
  where r.rolname = session_user and d.datname = pg_catalog.current_database()`

/** Reads what a server says of its room. `broker` is the name of the one whose sessions are not others'. */
export async function readNumbers(session: Asked, broker: string | undefined): Promise<LimitNumbers> {
  const { rows, pid } = await session.ask(question, [ownTags(broker)])
  const [row] = rows
  if (!row) throw new Error('it lists neither the role nor the database')
  const { max_connections, superuser_reserved, reserved, role, superuser, uses_reserved, database } = row
  return {
    maxConnections: count(max_connections),
    superuserReserved: count(superuser_reserved),
    reserved: reserved === null || reserved === undefined ? undefined : count(reserved),
    role: String(role),
    superuser: superuser === 'true',
    usesReserved: uses_reserved === 'true',
    roleLimit: count(row['role_limit']),
    database: String(database),
    databaseLimit: count(row['database_limit']),
    others: {
      server: count(row['on_server']),
      role: count(row['of_role']),
      database: count(row['on_database']),
    },
    // A proxy hands out keys of its own, since a request to cancel has to come to it; the server's process is another.
    proxy: pid !== count(row['pid']),
  }
}

function count(value: unknown): number {
  const number = typeof value === 'string' ? Number(value) : NaN
  if (!Number.isInteger(number)) throw new Error('it did not answer with numbers')
  return number
}

/** What the tags of a broker's sessions begin with; `''` if this thread sees no broker of that name. */
function ownTags(broker: string | undefined): string {
  const ledger = broker === undefined ? undefined : read(getEnvironmentData(environmentKey(broker)))
  return ledger ? (tagOf(ledger, 0, 0).split('-')[0] ?? '') : ''
}
