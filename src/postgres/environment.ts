import { optionRangeError } from '../errors.ts'
import { parseHosts, parsePorts } from './hosts.ts'
import type { Host } from './hosts.ts'

export type Env = Readonly<Record<string, string | undefined>>

/** What the environment has to say; undefined where it is silent. */
export interface Environment {
  readonly hosts: readonly Host[] | undefined
  readonly ports: readonly number[] | undefined
  readonly user: string | undefined
  readonly password: string | undefined
  readonly database: string | undefined
  readonly connectTimeoutMs: number | undefined
  /** What would be parameters in a URL. */
  readonly parameters: Readonly<Record<string, string>>
}

/** Variables of libpq and of postgres.js that stand for a parameter of the URL. Of two for the same the first counts. */
const parameterOf: readonly (readonly [variable: string, parameter: string])[] = [
  ['PGAPPNAME', 'application_name'],
  ['PGOPTIONS', 'options'],
  ['PGSSLMODE', 'ssl'],
  ['PGSSL', 'ssl'],
  ['PGSSLNEGOTIATION', 'sslnegotiation'],
  ['PGTARGETSESSIONATTRS', 'target_session_attrs'],
  ['PGCHANNELBINDING', 'channel_binding'],
  ['PGGSSENCMODE', 'gssencmode'],
]

/** Reads the variables; an empty one counts as one that is not set. Throws `ERR_OPTION` for what cannot be. */
export function readEnvironment(env: Env): Environment {
  const get = (name: string): string | undefined => env[name] || undefined
  const parameters: Record<string, string> = {}
  for (const [variable, parameter] of parameterOf) {
    const value = get(variable)
    if (value !== undefined) parameters[parameter] ??= value
  }
  const [host, port] = [get('PGHOST'), get('PGPORT')]
  return {
    hosts: host === undefined ? undefined : parseHosts('PGHOST', host),
    ports: port === undefined ? undefined : parsePorts(port),
    user: get('PGUSERNAME') ?? get('PGUSER'),
    password: get('PGPASSWORD'),
    database: get('PGDATABASE'),
    connectTimeoutMs: connectTimeoutMs(get('PGCONNECT_TIMEOUT')),
    parameters,
  }
}

/** In seconds there; 0 means for ever, which is no deadline that a pool could have. */
function connectTimeoutMs(seconds: string | undefined): number | undefined {
  if (seconds === undefined) return undefined
  const value = Number(seconds)
  if (!Number.isFinite(value)) {
    throw optionRangeError('PGCONNECT_TIMEOUT', 'PGCONNECT_TIMEOUT must be a number of seconds.')
  }
  return value > 0 ? Math.max(1, Math.round(value * 1_000)) : undefined
}
