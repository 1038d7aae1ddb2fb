import type { PathOrFileDescriptor } from 'node:fs'
import type postgres from 'postgres'
import { Aim } from './aim.ts'
import type { Deadlines } from './deadlines.ts'
import { callerOf, firstCallerOf } from './origin.ts'
import { RawQuery } from './query.ts'
import type { QueryLimits, Target, TextOptions } from './query.ts'
import type { QueryEvents } from './query-events.ts'

/** What postgres.js calls types: how values of your own travel. */
export type Types = Record<string, postgres.PostgresType>

/** The values that a pool's own types stand for. */
export type TypeValues<T extends Types> = Types extends T
  ? {}
  : {
      [K in keyof T]: T[K] extends { serialize: (value: infer R) => unknown; parse: (raw: never) => infer R }
        ? R
        : never
    }

/**
 * postgres.js's tag: queries (`` sql`select ${id}` ``), fragments, `sql(object)` helpers, `unsafe`, `json`, `array`,
 * `typed`, `file`, `notify`. A query does nothing before it is awaited or otherwise run.
 */
export interface PostgresSql<T extends Types = {}> extends postgres.ISql<TypeValues<T>> {
  /** Ends a cursor, when its callback returns it. */
  readonly CLOSE: {}
  /** Same as `CLOSE`. */
  readonly END: this['CLOSE']
  /** The class of the server's errors. */
  readonly PostgresError: typeof postgres.PostgresError
}

type Make = (...values: unknown[]) => unknown

/** Whose tag makes the queries. */
interface Maker {
  readonly sql: postgres.Sql
  readonly deadlines?: Deadlines | undefined
  readonly events?: QueryEvents | undefined
}

/** A tag whose queries go to the target: to one for all, or to that of the moment in which each of them is made. */
export function createSql<T extends Types>(
  template: Maker,
  target: Target | (() => Target),
  limits?: QueryLimits,
): PostgresSql<T> {
  const helper = template.sql as unknown as Make &
    Record<'typed' | 'types' | 'json' | 'array' | 'CLOSE' | 'PostgresError', unknown>
  const { typed, types, json, array, CLOSE, PostgresError } = helper
  const aimAt = (one: Target): Aim =>
    new Aim(one, { closing: CLOSE, deadlines: template.deadlines, events: template.events, limits })
  const aim = typeof target === 'function' ? aimOfNow(target, aimAt) : aimAlways(aimAt(target))
  const sql = (first: unknown, ...values: unknown[]): unknown => {
    if (!isTemplate(first)) return helper(first, ...values)
    const now = aim()
    const origin = now.debug ? callerOf(sql) : firstCallerOf(sql, first)
    return now.at(new RawQuery(first, values, undefined, now, origin))
  }
  Object.assign(sql, {
    typed,
    types,
    json,
    array,
    CLOSE,
    END: CLOSE,
    PostgresError,
    unsafe: function unsafe(text: string, ...values: unknown[]) {
      const now = aim()
      const { args, options } = textValues(values)
      const origin = now.debug ? callerOf(unsafe) : undefined
      return now.at(new RawQuery([text], args, { prepare: false, ...options }, now, origin))
    },
    file: function file(path: PathOrFileDescriptor, ...values: unknown[]) {
      const now = aim()
      const { args, options } = textValues(values)
      const origin = now.debug ? callerOf(file) : undefined
      return now.at(new RawQuery([], args, options, now.withFile(path), origin))
    },
    notify: async (channel: string, payload: unknown) => await tag`select pg_notify(${channel}, ${String(payload)})`,
  })
  const tag = sql as unknown as PostgresSql<T>
  return tag
}

/** Whether a tag was called as one, and not as a function that makes a helper. */
export function isTemplate(value: unknown): value is TemplateStringsArray {
  return Array.isArray(value) && 'raw' in value && Array.isArray(value.raw)
}

/** What follows a text: its parameters, its options, both or none. Without parameters it may be several statements. */
function textValues(values: readonly unknown[]): { args: readonly unknown[]; options: TextOptions } {
  const [first, second] = values
  const onlyOptions = values.length === 1 && !Array.isArray(first)
  const args = onlyOptions || first === undefined ? [] : (first as unknown[])
  const options = (onlyOptions ? first : second) ?? {}
  return { args, options: { simple: args.length === 0, ...options } }
}

function aimAlways(aim: Aim): () => Aim {
  return () => aim
}

function aimOfNow(targetOfNow: () => Target, aimAt: (target: Target) => Aim): () => Aim {
  const aims = new WeakMap<Target, Aim>()
  return () => {
    const target = targetOfNow()
    let aim = aims.get(target)
    if (!aim) aims.set(target, (aim = aimAt(target)))
    return aim
  }
}
