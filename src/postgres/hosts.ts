import { isIPv6 } from 'node:net'
import { optionRangeError, optionTypeError } from '../errors.ts'
import type { Address } from './dial.ts'
import type { TlsPolicy } from './tls.ts'

/** A server as somebody named it; without a port where nothing was said of it. */
export interface Host {
  /** A name, an IP address, or the directory of a unix socket. */
  readonly name: string
  readonly port: number | undefined
}

/** Takes `host`, `host:port`, `[::1]:port`, `::1` or `/directory` apart. Undefined: it is none of these. */
export function parseHost(text: string): Host | undefined {
  if (text.startsWith('/')) return { name: text, port: undefined }
  if (isIPv6(text)) return { name: text, port: undefined }
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]@\s]+))(?::(\d*))?$/.exec(text) ?? []
  const name = bracketed ?? plain
  if (!name || (bracketed !== undefined && !isIPv6(bracketed))) return undefined
  return { name, port: port ? portOf(port) : undefined }
}

/** One or several hosts, separated by commas, from an option or the environment. */
export function parseHosts(option: string, value: unknown): readonly Host[] {
  const texts = typeof value === 'string' ? value.split(',') : value
  if (!Array.isArray(texts) || texts.length === 0) throw wrong(option)
  return texts.map((text: unknown) => {
    const host = typeof text === 'string' ? parseHost(text.trim()) : undefined
    if (!host) throw wrong(option)
    return host
  })
}

function wrong(option: string): Error {
  return optionTypeError(option, `${option} must be host, host:port or several of them: 'a:5432,b:5432', or an array.`)
}

/** One port for all hosts, or one for each. */
export function parsePorts(value: unknown): readonly number[] {
  const ports = typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value : [value]
  return ports.map(portOf)
}

export function portOf(value: unknown): number {
  const port = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
  if (typeof port !== 'number') throw optionTypeError('port', 'port must be a number, or one for each host.')
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw optionRangeError('port', `port must be a whole number from 1 to 65535: got ${port}.`)
  }
  return port
}

const defaultPort = 5432

/** Puts hosts and ports together. What a host says of its port goes before `ports`. */
export function addressesOf(
  hosts: readonly Host[],
  ports: readonly number[] | undefined,
  tls: TlsPolicy | undefined,
): readonly Address[] {
  if (ports && ports.length > 1 && ports.length !== hosts.length) {
    throw optionRangeError('port', `port must be one number, or one for each of the ${hosts.length} hosts.`)
  }
  return hosts.map(({ name, port: own }, i) => {
    const port = own ?? (ports?.length === 1 ? ports[0] : ports?.[i]) ?? defaultPort
    if (name.startsWith('/')) return { path: `${name}/.s.PGSQL.${port}` }
    return tls ? { host: name, port, tls } : { host: name, port }
  })
}
