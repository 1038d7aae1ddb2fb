import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import type { Clock, Timer } from '../clock.ts'
import { orAborted, withinDeadline } from '../deadline.ts'
import {
  ConnectionLostError,
  LeaseReleasedError,
  PoolError,
  SessionBusyError,
  TransactionOutcomeUnknownError,
} from '../errors.ts'
import type { Lease } from '../lease.ts'
import type { Ambient } from './ambient.ts'
import { codeOf } from './connect-error.ts'
import type { Connection } from './connection.ts'
import { settleBy } from './query.ts'
import type { RawQuery, Target } from './query.ts'
import { callBack } from './scope-callbacks.ts'
import { SavepointGround } from './scope-ground.ts'
import type { Ground, Surrounding } from './scope-ground.ts'
import { Turn, Turns } from './scope-turns.ts'
import { createSql } from './sql.ts'
import type { SessionOptions } from './transaction-options.ts'
import type { PostgresSql, Types } from './sql.ts'
import type { Template } from './template.ts'

/** The tag of one transaction: its queries run inside it, and none of them after its end. */
export interface TransactionSql<T extends Types = {}> extends PostgresSql<T> {
  /**
   * Runs `fn` in a savepoint: when it throws, or a statement of it has failed, only what it did is rolled back, and the
   * error is thrown on. It has the transaction for itself meanwhile: savepoints and queries beside it, as in
   * `Promise.all`, wait for its end, while those made inside of it are part of it, whichever tag they use.
   */
  savepoint<R>(fn: (sql: TransactionSql<T>) => R | PromiseLike<R>): Promise<R>
}

/** What all scopes of one pool share. */
export interface House {
  readonly pool: string
  readonly template: Template
  readonly ambient: Ambient<Scope>
  readonly clock: Clock
  /** How long an answer to COMMIT is waited for when the time is up, and one to ROLLBACK always. */
  readonly commitGraceMs: number
}

/** How often an end looks whether what it waits for has come to wait for its reader. */
const lookMs = 20

/**
 * One transaction or savepoint.
 *
 * State
 *   begun     a promise: the connection is there, and SAVEPOINT has been answered, or BEGIN is to go out with the first
 *             query. Begins with that, if not before
 *   turns     what runs in it, one after the other: its queries, and each savepoint in it from its beginning to its end
 *   closed    takes no more turns; those it has taken still run
 *   over      nothing more of it reaches the connection, but for what ends it
 *   dead      why nothing can run in it though it is not over: it could not begin, or its connection is of no use
 *   failure   the error of the statement that has failed the transaction
 *   open      what of the query whose turn it is is in the hands of its reader
 *
 * Always
 *   1. nothing is sent before `begun`, and no query once it is over, or one around it is
 *   2. over implies closed; neither is undone
 *   3. a scope and the ones in it never have a statement under way at the same time, but for what an outer one does to
 *      end both
 *   4. a statement that finds the connection outside of a transaction is not sent
 */
export class Scope implements Surrounding {
  /** For those who have the tag … */
  readonly #explicit: Target
  /** … and for those who are inside. */
  readonly ambient: Target
  readonly around: Scope | undefined
  /** How the transaction was begun, a read-only savepoint of it included. */
  readonly options: SessionOptions
  readonly #house: House
  readonly #ground: Ground
  readonly #turns = new Turns()
  #entered = false
  #begun: Promise<void> | undefined
  #closed = false
  #over: Promise<void> | boolean = false
  #dead: { readonly error: unknown } | undefined
  #failure: unknown
  #open: (() => 'cursor' | 'copy' | undefined) | undefined
  #sql: TransactionSql | undefined

  constructor(house: House, ground: Ground, options: SessionOptions, around?: Scope) {
    this.#house = house
    this.#ground = ground
    this.options = options
    this.around = around
    const { debug } = house.template.options
    this.#explicit = { debug, run: (query) => this.#run(query, 'transaction') }
    this.ambient = { debug, run: (query) => this.#run(query, 'ambient') }
  }

  get sql(): TransactionSql {
    this.#sql ??= Object.assign(createSql<{}>(this.#house.template, this.#explicit), {
      savepoint: <R>(fn: (sql: TransactionSql) => R | PromiseLike<R>) => this.#savepoint(fn),
    })
    return this.#sql
  }

  /** That of the transaction itself, while it is held. */
  get lease(): Lease<Connection> | undefined {
    return this.#ground.lease
  }

  /** Nothing can be begun in it any more. */
  get ended(): boolean {
    return this.#closed || this.#isOver
  }

  /** The error of the statement that has failed the transaction. */
  get failure(): unknown {
    return this.#failure
  }

  /** Throws when it is not, or not any more, this scope's. */
  get connection(): Connection {
    if (this.#dead) throw this.#dead.error
    if (this.#isOver) throw new LeaseReleasedError(this.#house.pool, 'transaction')
    return this.#ground.connection
  }

  get #isOver(): boolean {
    return this.#over !== false || (this.around !== undefined && this.around.#isOver)
  }

  // ── Running ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Resolves when its first query can run. Rejects as an acquire does, or with what SAVEPOINT was answered with. */
  begin(): Promise<void> {
    if (!this.#begun) {
      this.#begun = this.#begin()
      // Its queries are told; nobody may be waiting for it by itself.
      this.#begun.catch(nothing)
    }
    return this.#begun
  }

  /** Calls `fn` inside. A query that it returns runs inside, too. */
  call<R>(fn: (sql: TransactionSql) => R | PromiseLike<R>): Promise<R> {
    return this.#house.ambient.run(this, async () => await fn(this.sql))
  }

  /** A savepoint in it. */
  within({ readOnly = false }: { readOnly?: boolean | undefined } = {}): Scope {
    const options = readOnly ? { ...this.options, readOnly } : this.options
    return new Scope(this.#house, new SavepointGround(this, { readOnly }), options, this)
  }

  /**
   * The innermost scope in it whose callback the caller is in, itself if there is none. What is run in there is part of
   * that one, whichever tag it uses: it would wait for its end otherwise, and that for it.
   */
  innermost(): Scope {
    for (const place of this.#house.ambient.around()) {
      let scope: Scope | undefined = place
      while (scope && scope !== this) scope = scope.around
      if (scope) return place
    }
    return this
  }

  take(turn: Turn): void {
    if (this.#dead) return turn.drop(this.#dead.error)
    if (this.ended) return turn.drop(new LeaseReleasedError(this.#house.pool, 'transaction'))
    this.#turns.take(turn)
    if (turn.deque && this.#open?.()) void this.#refuseIfBusy(turn)
    void this.begin()
  }

  ruin(error: Error): void {
    this.#dead ??= { error }
    this.#turns.drop(error)
    this.#ground.ruin(error)
  }

  #run(query: RawQuery, how: 'transaction' | 'ambient'): void {
    const scope = this.innermost()
    if (scope.ended) return query.reject(new LeaseReleasedError(this.#house.pool, how))
    scope.take(
      new Turn(
        (done) => scope.#handOver(query, done),
        (error) => query.reject(error),
      ),
    )
  }

  /** The reader of a cursor who asks for something else between two portions would wait for itself. */
  async #refuseIfBusy(turn: Turn): Promise<void> {
    try {
      if (!(await this.connection.isUnfinished())) return
      const open = this.#open?.()
      if (open) this.#turns.dropOne(turn, new SessionBusyError(open))
    } catch {
      // What has ended meanwhile has dropped it.
    }
  }

  #handOver(query: RawQuery, done: () => void): void {
    if (query.cancelled) return done()
    let connection: Connection
    try {
      connection = this.connection
      if (isOutside(connection)) throw connection.beginFailure ?? endedByStatement()
    } catch (error) {
      query.reject(error)
      return done()
    }
    let answer: unknown
    const { reject } = query
    settleBy(query, {
      reject: (error) => {
        answer ??= error
        reject(error)
      },
    })
    const open = (): 'cursor' | 'copy' | undefined => connection.openFor(query)
    this.#open = open
    callBack(query, (fn) => this.#house.ambient.run(this, fn))
    connection.run(query, {
      done: () => {
        this.#open = undefined
        if (connection.status === 'E') this.#failure ??= answer
        done()
      },
    })
  }

  async #begin(): Promise<void> {
    const { statements, outermost } = this.#ground
    try {
      const entering = this.#ground.enter()
      if (entering) await entering
      this.#entered = true
      if (outermost) this.connection.beginWithNext(statements.begin)
      else await this.#say(statements.begin)
      this.#turns.open()
    } catch (error) {
      this.#dead ??= { error }
      this.#turns.drop(error)
      throw error
    }
  }

  /** A savepoint's own words. */
  async #say(statement: string): Promise<void> {
    const { deadlines } = this.#house.template
    const { connection } = this
    const send = (signal?: AbortSignal): Promise<unknown> =>
      connection.askTask(statement, { signal, told: true }).answer
    await (deadlines ? deadlines.statement(send) : send())
  }

  async #savepoint<R>(fn: (sql: TransactionSql) => R | PromiseLike<R>): Promise<R> {
    const around = this.innermost()
    if (around.ended) throw new LeaseReleasedError(this.#house.pool, 'transaction')
    const scope = around.within()
    try {
      await scope.begin()
      const result = await scope.call(fn)
      await scope.commit()
      return result
    } catch (error) {
      const shown = scope.explain(error)
      await scope.rollback()
      throw shown
    }
  }

  // ── Ending ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** "Current transaction is aborted" tells nothing of why. */
  explain(error: unknown): unknown {
    return codeOf(error) === '25P02' ? (this.#failure ?? error) : error
  }

  /**
   * Lets what has been run finish. Rejects with what has failed the transaction; with the signal's reason; when the
   * connection is lost.
   */
  async drained(signal?: AbortSignal): Promise<void> {
    this.#closed = true
    if (!this.#begun) return
    if (this.#isQuiet) this.#checkStatus()
    else await orAborted(this.#drained(), signal)
  }

  /**
   * Takes nothing more, lets what has been run finish, and commits. Rejects with what has failed the transaction; after
   * that, or when the signal aborts before COMMIT was sent, it is still to be rolled back.
   */
  async commit(signal?: AbortSignal): Promise<void> {
    await this.drained(signal)
    if (this.#begun) await this.#commit(signal)
    else this.#over = true
  }

  /**
   * Ends what runs, undoes all, and gives the connection back. What waits for its turn rejects with `why`. Never
   * rejects. Does nothing after a commit.
   */
  async rollback(why: unknown = new LeaseReleasedError(this.#house.pool, 'transaction')): Promise<void> {
    this.#closed = true
    if (this.#over === false) this.#over = this.#rollback(why)
    if (this.#over !== true) await this.#over
  }

  async #drained(): Promise<void> {
    await this.#begun
    while (!this.#turns.idle) {
      if (await this.connection.isUnfinished()) throw unfinished()
      // Nothing tells of a cursor or a COPY that its reader has left.
      if (!this.#turns.idle) await Promise.race([this.#turns.changed(), sleep(lookMs)])
    }
    await this.connection.whenIdle()
    this.#checkStatus()
  }

  /** Has begun, and nothing runs or waits. */
  get #isQuiet(): boolean {
    if (!this.#turns.isOpen || !this.#turns.idle) return false
    const { connection } = this
    return connection.idle && !connection.isLost
  }

  /** Throws if there is nothing to commit any more. */
  #checkStatus(): void {
    const { connection } = this
    // The server would answer COMMIT with a rollback, and no error.
    if (connection.status === 'E') {
      throw this.#failure ?? new PoolError('ERR_TRANSACTION_FAILED', 'A statement has failed the transaction.')
    }
    if (isOutside(connection)) throw connection.beginFailure ?? endedByStatement()
  }

  async #commit(signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted()
    const { statements, outermost } = this.#ground
    if (this.connection.begins) {
      // Nothing was run in it.
      this.#over = true
      return await this.#ground.leave()
    }
    if (!outermost) {
      await this.#say(statements.commit)
      this.#over = true
      return await this.#ground.leave()
    }
    const { answer, task } = this.connection.askTask(statements.commit, { told: true })
    const tooLate = signal ? new AbortController() : undefined
    let timer: Timer | undefined
    const onAbort = (): void => {
      timer = this.#house.clock.setTimer(() => tooLate?.abort(signal?.reason), this.#house.commitGraceMs)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      await orAborted(answer, tooLate?.signal)
    } catch (error) {
      const unknown = tooLate?.signal.aborted || (error instanceof ConnectionLostError && task.wrote)
      if (!unknown) throw error
      this.#over = true
      const outcome = new TransactionOutcomeUnknownError(error)
      this.#ground.ruin(outcome)
      await this.#ground.leave()
      throw outcome
    } finally {
      timer?.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
    this.#over = true
    await this.#ground.leave()
  }

  async #rollback(why: unknown): Promise<void> {
    this.#ground.quit(why)
    this.#turns.drop(why)
    const { clock, commitGraceMs: ms } = this.#house
    if (this.#begun) await withinDeadline((signal) => this.#undo(signal), { clock, ms })
    await this.#ground.leave()
  }

  /** What cannot be undone here is undone by the release, or by whoever is around, or with the connection. */
  async #undo(signal: AbortSignal): Promise<void> {
    const { statements, outermost } = this.#ground
    try {
      await orAborted(this.#begun?.catch(nothing) ?? Promise.resolve(), signal)
      if (!this.#entered) return
      let { connection } = this.#ground
      for (let turns = 0; turns < 3 && !connection.idle; turns++) await nextTurn()
      if (!connection.idle) {
        if (await connection.isUnfinished()) throw unfinished()
        this.#ground.connection.cancelAll()
        // The release has a deadline for what does not end at once, and rolls back.
        if (outermost) return
        await connection.whenIdle(signal)
      }
      ;({ connection } = this.#ground)
      if (connection.status !== 'I') await connection.askTask(statements.rollback, { signal, told: true }).answer
    } catch (error) {
      // Those around would wait for it, and so would the release.
      if (signal.aborted || (codeOf(error) === 'ERR_UNFINISHED' && !outermost)) this.#ground.ruin(error as Error)
    }
  }
}

function nothing(): void {}

/** What would be run now would not be part of a transaction. */
function isOutside(connection: Connection): boolean {
  return connection.status === 'I' && !connection.begins && !connection.isLost
}

function unfinished(): PoolError {
  return new PoolError('ERR_UNFINISHED', 'Cannot end a transaction with a COPY or a cursor of it still open.')
}

function endedByStatement(): PoolError {
  return new PoolError(
    'ERR_TRANSACTION_FAILED',
    'A statement of the transaction has ended it (COMMIT or ROLLBACK), and nothing runs outside of it: return to commit, throw to roll back.',
  )
}
