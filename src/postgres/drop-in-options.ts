import { longestTimerMs } from '../clock.ts'
import { optionTypeError } from '../errors.ts'
import type { PoolOptions } from '../options.ts'
import type { Env } from './environment.ts'
import type { PostgresHooks, PostgresPoolOptions } from './options.ts'
import type { Types } from './sql.ts'

type Values = Readonly<Record<string, unknown>>

/** What the drop-in takes beyond postgres.js's options: those of a pool, above all `limit` and `broker`. */
export interface DropInExtras<T extends Types = {}> extends Omit<PoolOptions, 'max'>, PostgresHooks<T> {
  /** As in `createPool()`. */
  serverChecks?: PostgresPoolOptions['serverChecks']
  /** As in `createPool()`. */
  queryTimeoutMs?: number
  /** Called with the server's number of a session that has ended. */
  onclose?: (pid: number) => void
}

/** Names of postgres.js's options, and ours. */
const renamed: readonly (readonly [name: string, other: string])[] = [
  ['host', 'hostname'],
  ['user', 'username'],
  ['password', 'pass'],
  ['database', 'db'],
]

/** Means something to postgres.js only. Where it is left out, the answers are the same. */
const withoutMeaning = ['backoff', 'max_pipeline', 'keep_alive', 'publications', 'no_subscribe'] as const

/** Times and numbers that may stand in the URL or in the environment, too. */
const numbers = ['max', 'idle_timeout', 'connect_timeout', 'max_lifetime'] as const

const longestLifetimeMs = 3_600_000

/** postgres.js's options as ours, with its defaults. Throws `ERR_OPTION`. */
export function dropInOptions(
  a: unknown,
  b: unknown,
  env: Env = process.env,
): { url: string | undefined; options: PostgresPoolOptions } {
  const isUrl = typeof a === 'string' || a instanceof URL
  const given = ((!a || isUrl ? b : a) ?? {}) as Values
  const { url, taken } = splitUrl(isUrl ? String(a) : '')
  const options: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(given)) if (isSet(name, value)) options[name] = value
  for (const [name, other] of renamed) {
    if (other in options) options[name] ??= options[other]
    delete options[other]
  }
  if ('socket' in options) {
    throw optionTypeError(
      'socket',
      'Cannot use "socket": the pool dials by itself. Tunnel with a local port, or a unix socket.',
    )
  }
  for (const name of withoutMeaning) delete options[name]
  const wanted: Record<string, unknown> = {}
  for (const name of numbers) {
    wanted[name] = name in given ? given[name] : (taken[name] ?? env[`PG${name.toUpperCase()}`])
    delete options[name]
  }
  if (options['timeout'] !== undefined) wanted['idle_timeout'] = options['timeout']
  delete options['timeout']
  if (options['no_prepare']) options['prepare'] = false
  delete options['no_prepare']

  const max = numberOf('max', wanted['max']) ?? 10
  const defaults = {
    acquireTimeoutMs: Infinity,
    connectTimeoutMs:
      wanted['connect_timeout'] === undefined ? 30_000 : (msOf(wanted, 'connect_timeout') ?? longestTimerMs),
    idleTimeoutMs: msOf(wanted, 'idle_timeout') ?? Infinity,
    maxLifetimeMs:
      wanted['max_lifetime'] === undefined ? longestLifetimeMs : (msOf(wanted, 'max_lifetime') ?? Infinity),
    // A single connection is its owner's session.
    reset: max === 1 ? 'none' : 'auto',
    onnotice: given['onnotice'] === undefined || given['onnotice'] === null ? console.log : noop,
  }
  const merged: Record<string, unknown> = { ...defaults, ...options, max, ambient: false }
  if ('ambient' in options) throw optionTypeError('ambient', 'Cannot use "ambient": it is for createPool().')
  merged['connection'] = connectionOf(options['connection'], url, env)
  Object.assign(merged, closeHook(options))
  delete merged['onclose']
  if (url === undefined && !('host' in options) && !('path' in options) && !env['PGHOST']) merged['host'] = 'localhost'
  return { url, options: merged }
}

/** What postgres.js takes for not given. */
function isSet(name: string, value: unknown): boolean {
  if (value === undefined || value === null || value === '') return false
  return value !== false || !(name === 'path' || name === 'onnotice' || name === 'host')
}

/** postgres.js's own parameters of a URL, and the URL without them. */
function splitUrl(text: string): { url: string | undefined; taken: Values } {
  if (text === '') return { url: undefined, taken: {} }
  const mark = text.indexOf('?')
  if (mark < 0) return { url: text, taken: {} }
  const own: ReadonlySet<string> = new Set([...numbers, ...withoutMeaning])
  const parameters = new URLSearchParams(text.slice(mark + 1))
  const taken: Record<string, string> = {}
  for (const [name, value] of Array.from(parameters)) {
    if (!own.has(name)) continue
    taken[name] = value
    parameters.delete(name)
  }
  const rest = parameters.toString()
  return { url: `${text.slice(0, mark)}${rest && '?'}${rest}`, taken }
}

/** Seconds, or a function that tells them; what is none of either is refused. Nothing and 0 mean that there is no end. */
function msOf(wanted: Values, name: string): number | undefined {
  const value = wanted[name]
  const seconds = numberOf(name, typeof value === 'function' ? (value as () => unknown)() : value)
  return seconds === undefined || seconds === 0 ? undefined : Math.min(longestTimerMs, seconds * 1_000)
}

function numberOf(name: string, value: unknown): number | undefined {
  if (value === undefined || value === null || value === '' || value === false || value === 'false') return undefined
  const number = typeof value === 'string' ? Number(value) : value
  if (typeof number === 'number' && number >= 0) return number
  throw optionTypeError(name, `${name} must be a number${name === 'max' ? '' : ' of seconds'}: got ${typeof value}.`)
}

/** postgres.js's name for itself, where nobody gives another one. */
function connectionOf(connection: unknown, url: string | undefined, env: Env): unknown {
  const named = /[?&]application_name=/.test(url ?? '') ? {} : { application_name: env['PGAPPNAME'] || 'postgres.js' }
  return typeof connection === 'object' ? { ...named, ...connection } : (connection ?? named)
}

function closeHook({ onclose, onClose }: Record<string, unknown>): PostgresHooks {
  if (typeof onclose !== 'function') return {}
  const hear = onclose as (pid: number) => void
  const also = onClose as PostgresHooks['onClose']
  return {
    onClose(session, reason) {
      hear(session.pid)
      return also?.(session, reason)
    },
  }
}

function noop(): void {}
