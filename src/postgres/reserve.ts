import { LeaseReleasedError } from '../errors.ts'
import { settleBy } from './query.ts'
import type { RawQuery, Target } from './query.ts'
import { beginOptions } from './sql-face-begin.ts'
import type { Reserved } from './sql-face.ts'
import { createSql } from './sql.ts'
import type { PostgresSql } from './sql.ts'
import type { Template } from './template.ts'
import { checkSavepointOptions } from './transaction-options.ts'
import type { Isolation, SessionOptions } from './transaction-options.ts'

const statements = {
  begin: /^\s*(?:begin|start\s+transaction)\b([^;]*);?\s*$/i,
  commit: /^\s*(?:commit|end)(?:\s+(?:work|transaction))?\s*;?\s*$/i,
  rollback: /^\s*(?:rollback|abort)(?:\s+(?:work|transaction))?\s*;?\s*$/i,
} as const

let views = 0

/**
 * The connection of a transaction, for somebody who reserves one inside of it and sends BEGIN and COMMIT himself: they
 * become a savepoint and its end, so that what he does is part of the transaction.
 *
 * Unlike a savepoint with a callback it keeps nobody out: whoever has the connection in this way cannot be told from the
 * transaction's other code, and one would wait for the other.
 *
 * State: open = the savepoint that stands for his transaction; released = nothing more is run
 */
class View implements Target {
  readonly debug: unknown
  readonly #pool: string
  readonly #target: Target
  readonly #name = `millpond_reserved_${++views}`
  readonly #plain: PostgresSql
  #open = false
  #released = false

  constructor(pool: string, target: Target, template: Template) {
    this.debug = target.debug
    this.#pool = pool
    this.#target = target
    this.#plain = createSql(template, target)
  }

  run(query: RawQuery): void {
    if (this.#released) return query.reject(new LeaseReleasedError(this.#pool))
    const [text = '', ...more] = query.strings
    if (more.length > 0) return this.#target.run(query)
    const begin = statements.begin.exec(text)
    if (begin) void this.#begin(query, begin[1] ?? '')
    else if (statements.commit.test(text)) this.#end(query, this.#release)
    else if (statements.rollback.test(text)) this.#end(query, this.#undo)
    else this.#target.run(query)
  }

  left(query: RawQuery): void {
    this.#target.left?.(query)
  }

  /** What was begun and not ended is undone, as with the connection itself. */
  async release(): Promise<void> {
    if (this.#released) return
    this.#released = true
    if (this.#open) await this.#plain.unsafe(this.#undo).then(nothing, nothing)
  }

  get #release(): string {
    return `release savepoint ${this.#name}`
  }

  get #undo(): string {
    return `rollback to savepoint ${this.#name}; release savepoint ${this.#name}`
  }

  async #begin(query: RawQuery, text: string): Promise<void> {
    // A second BEGIN does nothing on the connection itself.
    if (this.#open) return this.#send(query, '')
    this.#open = true
    const { reject } = query
    settleBy(query, {
      reject: (error) => {
        this.#open = false
        reject(error)
      },
    })
    try {
      const options = beginOptions(text)
      if (Object.keys(options).length > 0) checkSavepointOptions(options, await optionsAround(this.#plain))
      this.#send(query, `savepoint ${this.#name}${options.readOnly ? '; set transaction read only' : ''}`)
    } catch (error) {
      query.reject(error)
    }
  }

  /** Without a BEGIN there is nothing to end: least of all the transaction around. */
  #end(query: RawQuery, statement: string): void {
    if (!this.#open) return this.#send(query, '')
    const { resolve } = query
    settleBy(query, {
      resolve: (value) => {
        this.#open = false
        resolve(value)
      },
    })
    this.#send(query, statement)
  }

  #send(query: RawQuery, statement: string): void {
    query.strings = [statement]
    query.options.simple = true
    this.#target.run(query)
  }
}

interface SettingsAround {
  isolation: Isolation
  readonly: string
  deferrable: string
}

/** What the transaction around is, as the server knows it. */
async function optionsAround(sql: PostgresSql): Promise<SessionOptions> {
  const [row] = await sql<[SettingsAround]>`
    select
      current_setting('transaction_isolation') as isolation,
      current_setting('transaction_read_only') as readonly,
      current_setting('transaction_deferrable') as deferrable`
  return { isolation: row.isolation, readOnly: row.readonly === 'on', deferrable: row.deferrable === 'on' }
}

/** `reserve()` inside of a transaction. `target` takes queries to it. */
export function reserveInside(pool: string, target: Target, template: Template): Reserved {
  const view = new View(pool, target, template)
  return { sql: createSql(template, view), release: () => view.release() }
}

function nothing(): void {}
