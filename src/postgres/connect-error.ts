import postgres from 'postgres'
import { ConnectError, messageOf } from '../errors.ts'
import { shownAddress } from './dial.ts'
import type { Address } from './dial.ts'
import { insteadOf } from './foreign.ts'
import type { ErrorFields } from './frames.ts'
import { LoginError } from './login.ts'
import type { PostgresSettings } from './options.ts'
import { TlsError } from './tls.ts'

/** The server's own error, as postgres.js would have thrown it. */
export function serverError(fields: ErrorFields): Error {
  return new (postgres.PostgresError as unknown as new (fields: ErrorFields) => Error)(fields)
}

/** The code of a server's or a system's error. */
export function codeOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code
  return error instanceof AggregateError ? error.errors.map(codeOf).find(Boolean) : undefined
}

/** Authentication and a database that does not exist: trying again cannot help. */
function isFinal(cause: unknown): boolean {
  const code = codeOf(cause)
  if (code !== undefined && (/^28...$/.test(code) || code === '3D000' || code === wrongProof)) return true
  return (cause instanceof TlsError || cause instanceof LoginError) && cause.final
}

/** postgres.js found that the server does not know the password. */
const wrongProof = 'SASL_SIGNATURE_MISMATCH'

/** An unknown parameter, a value that cannot be, and what poolers say of either. */
const refusals: ReadonlySet<string> = new Set(['42704', '22023', '08P01'])

/** Whether the server refuses a startup parameter, whichever it is. */
export function isRefusal(cause: unknown): boolean {
  const code = codeOf(cause)
  return code !== undefined && refusals.has(code)
}

/** Which of these startup parameters the server refuses. Its words may be of any language, the name is in them. */
export function refusedParameter(cause: unknown, parameters: Readonly<Record<string, string>>): string | undefined {
  if (!isRefusal(cause) || !(cause instanceof Error)) return undefined
  const words = new Set(cause.message.split(/[^\w.]+/))
  return Object.keys(parameters).find((name) => words.has(name))
}

/** What may be done about it. */
function hintFor(settings: PostgresSettings, address: Address, cause: unknown): string {
  const name = refusedParameter(cause, settings.connection)
  if (name !== undefined) {
    const instead = insteadOf(name)
    return `; "${name}" went to the server as a parameter of the session, from the URL, the environment or the option connection${instead ? `: ${instead}` : ''}`
  }
  const isPlain = 'host' in address && !address.tls
  // The server says so in its own language, but the file has one name.
  if (codeOf(cause) === '28000' && isPlain && messageOf(cause).includes('pg_hba.conf')) {
    return `; where the server wants TLS, set ssl or sslmode to 'require' or 'verify-full'`
  }
  return ''
}

/** Why there is no connection, to whom, as whom. */
export function connectError(
  settings: PostgresSettings,
  cause: unknown,
  doubtful: boolean,
  address: Address = settings.address,
): ConnectError {
  const { user, database } = settings
  const code = codeOf(cause)
  const detail = cause instanceof postgres.PostgresError && code ? ` (${code})` : ''
  const hint = hintFor(settings, address, cause)
  return new ConnectError(
    `Cannot connect to ${shownAddress(address)} as "${user}" to database "${database}": ${messageOf(cause)}${detail}${hint}`,
    {
      retryable: !isFinal(cause) && refusedParameter(cause, settings.connection) === undefined,
      doubtful,
      full: code === '53300',
      cause,
    },
  )
}
