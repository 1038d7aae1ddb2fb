import { optionTypeError } from '../errors.ts'
import type { OptionError } from '../errors.ts'

/** The parts of a connection URL, decoded; undefined where it is silent. */
export interface UrlParts {
  readonly host: string | undefined
  readonly port: string | undefined
  readonly user: string | undefined
  readonly password: string | undefined
  readonly database: string | undefined
  readonly parameters: Record<string, string>
}

/**
 * Takes `postgres://user:password@host:port/database?parameter=value` apart. By hand, since `URL` refuses some forms
 * that PostgreSQL's own clients take: `postgres://user@/db?host=/tmp` has no host.
 */
export function parseUrl(url: string): UrlParts {
  const match = /^(postgres|postgresql):\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(url)
  if (!match) throw wrong(url, 'it must have the form postgres://user:password@host:port/database')
  const [, , authority = '', path = '', query = ''] = match
  const at = authority.lastIndexOf('@')
  const credentials = at < 0 ? '' : authority.slice(0, at)
  const hosts = authority.slice(at + 1)
  if (hosts.includes(',')) throw wrong(url, 'several hosts are not supported yet')
  const server = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(hosts)
  if (!server)
    throw wrong(url, 'what stands between "@" and "/" must be host:port, and a password must be percent-encoded')
  const colon = credentials.indexOf(':')
  const parameters: Record<string, string> = {}
  for (const [key, value] of new URLSearchParams(query)) parameters[key] = value
  const decode = (part: string | undefined): string | undefined => {
    if (!part) return undefined
    try {
      return decodeURIComponent(part)
    } catch {
      throw wrong(url, 'its percent-encoding is broken')
    }
  }
  return {
    host: decode(server[1])?.replace(/^\[(.*)\]$/, '$1'),
    port: server[2] || undefined,
    user: decode(colon < 0 ? credentials : credentials.slice(0, colon)),
    password: decode(colon < 0 ? '' : credentials.slice(colon + 1)),
    database: decode(path),
    parameters,
  }
}

function wrong(url: string, why: string): OptionError {
  return optionTypeError('url', `Cannot read the url "${redact(url)}": ${why}.`)
}

/** The URL without what may be a password, however badly it is written. */
export function redact(url: string): string {
  const shown = url.replaceAll(/([?&](?:password|pass|sslpassword)=)[^&#]*/gi, '$1***')
  const scheme = shown.indexOf('://')
  // No address at all: there is no telling what it is.
  if (scheme < 0) return '***'
  const at = shown.lastIndexOf('@')
  const colon = shown.indexOf(':', scheme + 3)
  if (colon < 0) return shown
  // Without an "@" nobody knows where a password would end.
  if (at < 0) return `${shown.slice(0, colon)}:***`
  return colon < at ? `${shown.slice(0, colon)}:***${shown.slice(at)}` : shown
}
