import type { ConnectionOptions } from 'node:tls'
import type { TlsPolicy } from './tls.ts'
import { optionTypeError } from '../errors.ts'

/** Whether and how sessions use TLS: postgres.js's values, and libpq's `verify-ca`. */
export type Ssl = boolean | 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full' | ConnectionOptions

/** `'direct'`: TLS from the first byte on, as PostgreSQL 17 and later can. */
export type SslNegotiation = 'postgres' | 'direct'

const untrusting: ConnectionOptions = { rejectUnauthorized: false }

const modes: Readonly<Record<string, { optional?: boolean; options: ConnectionOptions } | undefined>> = {
  disable: undefined,
  false: undefined,
  allow: { optional: true, options: untrusting },
  prefer: { optional: true, options: untrusting },
  require: { options: untrusting },
  // The name in the certificate does not matter, who signed it does.
  'verify-ca': { options: { checkServerIdentity: () => undefined } },
  'verify-full': { options: {} },
  true: { options: {} },
}

/** What the words mean that come from an option, a URL or the environment; `name` is where it stood. */
export function tlsPolicy(
  ssl: unknown,
  { negotiation, name }: { negotiation: unknown; name: string },
): TlsPolicy | undefined {
  const direct = negotiation === 'direct'
  if (negotiation !== undefined && negotiation !== null && negotiation !== 'postgres' && !direct) {
    throw optionTypeError('sslnegotiation', `sslnegotiation must be 'postgres' or 'direct'.`)
  }
  const policy = fromValue(ssl, name)
  if (direct && (!policy || policy.optional)) {
    throw optionTypeError('sslnegotiation', `sslnegotiation 'direct' needs ssl to be at least 'require'.`)
  }
  return policy && { optional: policy.optional ?? false, direct, options: policy.options }
}

function fromValue(ssl: unknown, name: string): { optional?: boolean; options: ConnectionOptions } | undefined {
  if (ssl === undefined || ssl === null) return undefined
  if (typeof ssl === 'object' && !Array.isArray(ssl)) return { options: ssl }
  const word = typeof ssl === 'boolean' || typeof ssl === 'string' ? String(ssl) : ''
  if (Object.hasOwn(modes, word)) return modes[word]
  const hint = word === 'no-verify' ? " ('no-verify' of pg is 'require' here)" : ''
  const allowed = Object.keys(modes)
    .filter((mode) => mode !== 'true' && mode !== 'false')
    .join("', '")
  throw optionTypeError('ssl', `${name} must be true, false, '${allowed}' or options of tls.connect()${hint}.`)
}
