import { optionTypeError } from '../errors.ts'
import type { OptionError } from '../errors.ts'
import { parseHost, portOf } from './hosts.ts'
import type { Host } from './hosts.ts'

/** The parts of a connection URL, decoded; undefined where it is silent. */
export interface UrlParts {
  readonly hosts: readonly Host[] | undefined
  readonly user: string | undefined
  readonly password: string | undefined
  readonly database: string | undefined
  readonly parameters: Readonly<Record<string, string>>
}

/**
 * Takes `postgres://user:password@host:port,host:port/database?parameter=value` apart. By hand, since `URL` refuses
 * some forms that PostgreSQL's own clients take: `postgres://user@/db?host=/tmp` has no host, others have several.
 */
export function parseUrl(url: string): UrlParts {
  const match = /^(postgres|postgresql):\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i.exec(url)
  if (!match) throw wrong(url, 'it must have the form postgres://user:password@host:port/database')
  const [, , authority = '', path = '', query = ''] = match
  const at = authority.lastIndexOf('@')
  // A password that was not encoded ends the authority too early, and would be shown as a host, a port or a database.
  if (path.includes('@') || (at < 0 && /^[^=&]*@/.test(query))) {
    throw wrong(url, 'a password must be percent-encoded, and so must an "@" anywhere else')
  }
  const credentials = at < 0 ? '' : authority.slice(0, at)
  const places = authority.slice(at + 1)
  const colon = credentials.indexOf(':')
  const decode = (part: string): string | undefined => {
    if (!part) return undefined
    try {
      return decodeURIComponent(part)
    } catch {
      throw wrong(url, 'its percent-encoding is broken')
    }
  }
  return {
    hosts: places === '' ? undefined : places.split(',').flatMap((place) => hostOf(place, decode, url)),
    user: decode(colon < 0 ? credentials : credentials.slice(0, colon)),
    password: decode(colon < 0 ? '' : credentials.slice(colon + 1)),
    database: decode(path),
    parameters: Object.fromEntries(new URLSearchParams(query)),
  }
}

/** The port is cut off first: a percent-encoded directory may hold anything. `:5433` alone is a port of localhost. */
function hostOf(place: string, decode: (part: string) => string | undefined, url: string): Host {
  const [, name = '', port] = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(place) ?? [undefined, ' ']
  const decoded = decode(name) ?? 'localhost'
  const host = parseHost(decoded)
  if (!host || host.port !== undefined) {
    throw wrong(url, 'what stands between "@" and "/" must be host:port, and a password must be percent-encoded')
  }
  return { name: host.name, port: port ? portOf(port) : undefined }
}

function wrong(url: string, why: string): OptionError {
  return optionTypeError('url', `Cannot read the url "${redact(url)}": ${why}.`)
}

/** Whether a text may be a URL with a password in it. */
export function mayHavePassword(text: string): boolean {
  return /@|[?&]\w*pass/i.test(text)
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
