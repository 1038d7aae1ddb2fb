import { PoolError } from '../../src/index.ts'
import type { PostgresPool } from '../../src/postgres/index.ts'
import type { TestDatabase } from '../support/database.ts'
import type { Model } from './model.ts'
import type { Random } from './random.ts'
import type { Rule, Verdict } from './verdict.ts'

/** What all operations share. */
export interface World {
  readonly db: TestDatabase
  readonly pools: readonly TestPool[]
  readonly verdict: Verdict
  readonly model: Model
  readonly faults: Faults
}

export interface TestPool {
  readonly pool: PostgresPool
  /** What the sessions' names begin with. */
  readonly name: string
  readonly max: number
}

/** What was done to sessions from outside, and when last: it explains errors for a while. */
export class Faults {
  #terminated = -Infinity
  #cancelled = -Infinity
  #evicted = -Infinity

  terminated(): void {
    this.#terminated = performance.now()
  }

  cancelled(): void {
    this.#cancelled = performance.now()
  }

  evicted(): void {
    this.#evicted = performance.now()
  }

  /** Whether a connection may have been lost since then, or just before. */
  mayLose(since: number): boolean {
    return this.#terminated > since - explainsMs
  }

  mayCancel(since: number): boolean {
    return this.#cancelled > since - explainsMs
  }

  mayEvict(since: number): boolean {
    return this.#evicted > since - explainsMs
  }
}

/** An idle connection's end may be noticed when it is lent the next time, a signal takes its time on a busy machine. */
const explainsMs = 1_500

/** A wrong answer. */
export class Wrong extends Error {
  readonly rule: Rule

  constructor(message: string, rule: Rule = 'answer') {
    super(message)
    this.rule = rule
  }
}

/** What became of an attempt: its answer, the error that it had to have, or one that may happen to any. */
export type Outcome<T> =
  | { readonly was: 'answered'; readonly value: T }
  | { readonly was: 'failed' | 'excused'; readonly error: unknown }

export const codeOf = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''

export function shown(error: unknown): string {
  if (!(error instanceof Error)) return JSON.stringify(error) ?? String(error)
  const cause = error.cause === undefined ? '' : ` (because of ${shown(error.cause)})`
  return `${error.name} ${codeOf(error)}: ${error.message}${cause}\n${error.stack ?? ''}`
}

/** One operation: what it draws, what it does, and what it may run into. */
export class Here {
  readonly world: World
  readonly random: Random
  readonly operation: number
  readonly pool: PostgresPool
  readonly startedAt: number = performance.now()
  /** What it is doing: told when it hangs. */
  readonly doing = new Set<string>()
  /** What came of what it did: told with what was wrong. */
  readonly trace: string[] = []
  /** Errors and reasons of its own making. */
  readonly own = new Set<unknown>()
  /** Codes that may happen to it by its own doing. */
  readonly allowed = new Set<string>()
  #nonces = 0

  constructor(world: World, random: Random, operation: number) {
    this.world = world
    this.random = random
    this.operation = operation
    const first = world.pools[0] as TestPool
    this.pool = (random.chance(0.25) ? (world.pools[1] ?? first) : first).pool
  }

  /** A number that no other query has. */
  nonce(): number {
    return this.operation * 1_000 + this.#nonces++
  }

  /** An error of the caller's own. */
  error(): Error {
    const error = new Error(`of operation ${this.operation}`)
    this.own.add(error)
    return error
  }

  /** Allows a code, or none. */
  allow(...codes: readonly string[]): this {
    for (const code of codes) this.allowed.add(code)
    return this
  }

  report(rule: Rule, what: string, detail: string): void {
    this.trace.push(`${what} → ${rule}`)
    this.world.verdict.report({ rule, operation: this.operation, what, detail, trace: this.trace })
  }

  note(what: string): void {
    this.trace.push(what)
    this.world.verdict.count(what)
  }

  /** Runs something that has to be answered, or to fail with this code, unless something has happened. */
  async attempt<T>(what: string, run: () => PromiseLike<T>, expected?: string): Promise<Outcome<T>> {
    const doing = `${what} (${this.doing.size})`
    this.doing.add(doing)
    try {
      const value = await run()
      this.note(what)
      if (expected === undefined) return { was: 'answered', value }
      this.report('answer', what, `got an answer in place of ${expected}: ${JSON.stringify(value)?.slice(0, 300)}`)
      return { was: 'excused', error: undefined }
    } catch (error) {
      return { was: this.judge(what, error, expected), error }
    } finally {
      this.doing.delete(doing)
    }
  }

  judge(what: string, error: unknown, expected?: string): 'failed' | 'excused' {
    const code = codeOf(error)
    if (expected !== undefined && code === expected) {
      this.note(`${what}: ${code}`)
      return 'failed'
    }
    if (error instanceof Wrong) this.report(error.rule, what, error.message)
    else if (!this.#isTyped(error)) this.report('typed', what, shown(error))
    else if (!this.excuses(error)) this.report('excuse', what, shown(error))
    else this.note(`${what}: ${code || 'own'} (excused)`)
    return 'excused'
  }

  #isTyped(error: unknown): boolean {
    return error instanceof PoolError || error instanceof this.pool.sql.PostgresError || this.own.has(error)
  }

  /** Whether there is a reason for this error. */
  excuses(error: unknown): boolean {
    if (this.own.has(error)) return true
    const code = codeOf(error)
    if (this.allowed.has(code)) return true
    const { faults } = this.world
    const lost = faults.mayLose(this.startedAt)
    if (code === 'ERR_CONNECTION_LOST' || code === 'ERR_OUTCOME_UNKNOWN') return lost
    return code === '57014' && faults.mayCancel(this.startedAt)
  }
}

/** Compares as JSON does. */
export function same(actual: unknown, expected: unknown): void {
  const [one, other] = [JSON.stringify(actual), JSON.stringify(expected)]
  if (one !== other) throw new Wrong(`got ${one?.slice(0, 500)} in place of ${other.slice(0, 500)}`)
}
