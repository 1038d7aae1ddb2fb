import { optionTypeError } from '../errors.ts'
import { createPool } from '../postgres/index.ts'
import type { PostgresPool, PostgresPoolOptions, Types } from '../postgres/index.ts'
import { shownUrl } from './shown-url.ts'

const mark = Symbol.for('millpond.definePool')
declare const typesOf: unique symbol

/** The address of a database and options of its pools, those that are functions included. */
export type PoolDefinitionOptions<T extends Types = {}> = Omit<PostgresPoolOptions<T>, 'limit' | 'broker'> & {
  /** The database. */
  url?: string | URL | undefined
}

/** As `definePool` gives it. What is declared here is for the compiler only. */
export interface PoolDefinition<T extends Types = {}> {
  readonly [typesOf]: T
}

/** The custom types of a definition, or of a module that exports one as its default. */
export type DefinedTypes<D> =
  D extends PoolDefinition<infer T> ? T : D extends { default: PoolDefinition<infer T> } ? T : {}

interface Defined {
  readonly [mark]: PoolDefinitionOptions<Types>
}

/**
 * Defines the pools of a service, in a module of its own that each thread loads: functions do not cross threads. The
 * module's default export is the definition, and the service's `url` is the module's. The limit stays with the service,
 * whose plain options of `pool` win over those here.
 *
 * @example
 * ```ts
 * // db.ts
 * import { definePool } from 'millpond/service'
 *
 * export default definePool({
 *   url: process.env.DATABASE_URL,
 *   password: async () => 'a token that is fresh',
 *   onOpen: (sql) => sql`set search_path = app`,
 *   types: { date: { to: 1082, from: [1082], serialize: String, parse: (text: string) => text } },
 * })
 * ```
 */
export function definePool<T extends Types = {}>(options: PoolDefinitionOptions<T> & { types?: T }): PoolDefinition<T> {
  if (typeof options !== 'object' || options === null) {
    throw optionTypeError(
      'options',
      `definePool() takes the options of a pool, as in { url }: got ${shownUrl(options)}.`,
    )
  }
  for (const key of ['limit', 'broker']) {
    if (Object.hasOwn(options, key)) {
      throw optionTypeError(key, `Cannot define a pool with "${key}": the service has its own "limit".`)
    }
  }
  return { [mark]: options } as unknown as PoolDefinition<T>
}

/** Whether a service's `url` names a module that defines its pools. */
export function isModule(url: string | URL | undefined): boolean {
  return url !== undefined && String(url).startsWith('file:')
}

/** Makes the pool of a thread, from a database's URL or from a module that defines it. */
export async function openPool(url: string | undefined, options: PostgresPoolOptions): Promise<PostgresPool> {
  if (url === undefined || !isModule(url)) return createPool(url, options)
  const module = (await import(url)) as { default?: Partial<Defined> }
  const defined = module.default?.[mark]
  if (!defined) {
    throw optionTypeError('url', `url must name a module whose default export is definePool({ … }): ${url} has none.`)
  }
  const { url: database, ...definition } = defined
  return createPool(database, { ...definition, ...options })
}
