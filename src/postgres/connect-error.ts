import postgres from 'postgres'
import { ConnectError, messageOf } from '../errors.ts'
import type { ErrorFields } from './frames.ts'
import type { PostgresSettings } from './options.ts'

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
function isFinal(code: string | undefined): boolean {
  return code !== undefined && (/^28...$/.test(code) || code === '3D000')
}

/** Why there is no connection, to whom, as whom. */
export function connectError(settings: PostgresSettings, cause: unknown, doubtful: boolean): ConnectError {
  const { address, user, database } = settings
  const where = 'path' in address ? address.path : `${address.host}:${address.port}`
  const code = codeOf(cause)
  const detail = cause instanceof postgres.PostgresError && code ? ` (${code})` : ''
  return new ConnectError(
    `Cannot connect to ${where} as "${user}" to database "${database}": ${messageOf(cause)}${detail}`,
    {
      retryable: !isFinal(code),
      doubtful,
      full: code === '53300',
      cause,
    },
  )
}
