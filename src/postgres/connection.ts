import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { Deque } from '../deque.ts'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import type { Identity } from '../driver.ts'
import { ConnectionLostError, QueryCancelledError, SessionBusyError } from '../errors.ts'
import { orAborted } from '../deadline.ts'
import { sendCancelRequest } from './cancel.ts'
import type { Address } from './dial.ts'
import { serverError } from './connect-error.ts'
import type { ErrorFields, TransactionStatus } from './frames.ts'
import { keepStream } from './copy.ts'
import { KnownStatements } from './known-statements.ts'
import { ownRows } from './own-rows.ts'
import type { Row } from './own-rows.ts'
import { Prelude } from './prelude.ts'
import { cancelUnsent, ownQuery, rejectEarly, settleBy } from './query.ts'
import type { RawQuery } from './query.ts'
import { Traces, traceOfText } from './reset.ts'
import { RowReader } from './row-reader.ts'
import { sendAtOnce } from './send-at-once.ts'
import { Task } from './task.ts'
import type { RunOptions, StreamListener } from './task.ts'
import type { Inner } from './template.ts'
import type { Wire } from './wire.ts'

/** How long a request to cancel may take before what it was for goes on without it. */
const cancelTimeoutMs = 5_000
/** When the first of them is followed by a second one; each later one takes twice as long. */
const cancelAgainMs = 250

/** In which the server gets from a statement that was cancelled to the next one that it was sent. */
const stopNextMs = 20

interface AskOptions {
  readonly parameters?: readonly unknown[]
  readonly signal?: AbortSignal | undefined
  readonly told?: boolean
}

interface Asked {
  readonly answer: Promise<unknown>
  readonly task: Task
}

/** Whoever listens on a connection. */
export interface Hearing {
  notified(channel: string, payload: string): void
  /** The session has ended. */
  lost(cause: unknown): void
}

/**
 * One session of the server: one instance of postgres.js, one socket, one life.
 *
 * State
 *   current   the query that has been handed to postgres.js and whose answer is not complete
 *   queue     those that wait for that, oldest first
 *   ahead     how many of those, from the first on, have been sent to the server already (`runBehind`), as the frames know
 *   cancels   requests to cancel that are under way: until they have ended they could hit what is sent next
 *   lost      the session has ended (or we have ended it), and why
 *
 * Always
 *   1. postgres.js has one query at the most. It gives the neighbour of a query that fails in the wrong moment its error,
 *      its rows, or no answer at all
 *   2. a query is handed over only while the wire is quiet and, if it has not been sent yet, no cancel is under way
 *   3. ahead > 0 implies a current query, or lost. Its answer, and those of all that were sent ahead, each end with one Sync
 *   4. lost implies: no current, an empty queue, and postgres.js parted from the socket
 */
export class Connection {
  readonly identity: Identity
  readonly traces: Traces = new Traces()
  hearing: Hearing | undefined
  readonly #address: Address
  readonly #wire: Wire
  readonly #inner: Inner
  readonly #queue = new Deque<Task>()
  /** Whether postgres.js writes what it is handed at once, as far as is known (`sendAtOnce`). */
  #sendsAtOnce = false
  #current: Task | undefined
  #plain = false
  #cancels = 0
  #lost: { readonly cause: unknown } | undefined
  /** Why the server ends the session at once, where it says so without an error. */
  #parting: ErrorFields | undefined
  readonly #onLost: ((cause: unknown) => void)[] = []
  #idleWaiters: Deferred<void>[] = []

  constructor(wire: Wire, inner: Inner, address: Address, tag: string) {
    this.#wire = wire
    this.#inner = inner
    this.#address = address
    inner.told = () => this.#current?.told ?? false
    this.identity = { pid: wire.frames.pid, secret: wire.frames.secret, tag }
    wire.listen({
      arrived: () => this.#arrived(),
      wrote: () => this.#wrote(),
      mending: () => this.#mending(),
      died: (cause) => this.#lose(cause),
    })
    wire.on('notification', (channel: string, payload: string) => this.hearing?.notified(channel, payload))
    wire.on('parting', (notice: ErrorFields) => {
      this.#parting = notice
    })
  }

  // ── What it is doing ───────────────────────────────────────────────────────────────────────────────────────────

  /** Nothing runs, nothing waits, nothing is being cancelled. */
  get idle(): boolean {
    return this.#current === undefined && this.#queue.size === 0 && this.#cancels === 0
  }

  /** What the server said with its last answer. */
  get status(): TransactionStatus {
    return this.#wire.frames.status
  }

  /** A transaction begins with what is run next. */
  get begins(): boolean {
    return this.#wire.prelude?.unsent ?? false
  }

  /** What BEGIN was answered with, if that is an error. */
  get beginFailure(): Error | undefined {
    const failure = this.#wire.prelude?.failure
    return failure && serverError(failure)
  }

  get isLost(): boolean {
    return this.#lost !== undefined
  }

  /**
   * Whether what runs waits for its user, who has left: a COPY that has not been completed, a cursor that has not been
   * read to its end. A cursor left by `break` is closed, but the words are still on their way out.
   */
  async isUnfinished(): Promise<boolean> {
    for (let turns = 0; turns < 3 && this.#waitsForUser; turns++) await nextTurn()
    return this.#waitsForUser
  }

  get #waitsForUser(): boolean {
    const task = this.#current
    if (!task || hasLeft(task)) return false
    return this.#wire.frames.copy !== undefined || this.#wire.frames.suspended
  }

  /** What of this query is in the hands of its reader: what is run behind it would wait for its reader. */
  openFor(query: RawQuery): 'cursor' | 'copy' | undefined {
    const task = this.#current
    if (!task || task.query !== query || hasLeft(task)) return undefined
    const { copy, portal } = this.#wire.frames
    return copy ? 'copy' : portal ? 'cursor' : undefined
  }

  /** Syncs and queries sent; for tests of what costs a round trip. */
  get roundTrips(): number {
    return this.#wire.frames.asked
  }

  /** Calls `fn` once, when the session ends; at once if it has ended. */
  onLost(fn: (cause: unknown) => void): void {
    if (this.#lost) fn(this.#lost.cause)
    else this.#onLost.push(fn)
  }

  ref(): void {
    this.#wire.ref()
  }

  unref(): void {
    this.#wire.unref()
  }

  // ── Running ────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Runs a query, after those before it; not behind a cursor or a COPY whose reader may be waiting for it. */
  run(query: RawQuery, options: RunOptions = noOptions): Task {
    const task = new Task(query, options)
    query.runsOn = this
    if (this.#lost) {
      query.reject(new ConnectionLostError(this.#lost.cause))
      task.done()
    } else if (this.idle) {
      this.#handOver(task)
    } else {
      this.#queue.pushBack(task)
      if (!task.own && this.#current && this.openFor(this.#current.query)) void this.#refuseIfBusy(task)
    }
    return task
  }

  /**
   * Runs a query after those before it, and sends it at once. False, and nothing has happened, where that is not safe:
   * where the query could be taken for another one, or could change what the others find.
   */
  runBehind(query: RawQuery, options: RunOptions): boolean {
    const { statements } = this.#inner
    const current = this.#current
    if (!statements || !current || !this.#takesMoreBehind(current) || !KnownStatements.allow(query)) return false
    const message = statements.messageFor(query)
    if (!message) return false
    const task = new Task(query, options)
    task.ahead = message
    query.runsOn = this
    // From now on it cannot be changed.
    query.state = this.identity
    if (!current.ahead) this.#spare(current)
    this.#spare(task)
    this.#queue.pushBack(task)
    query.watch?.sent?.(this.identity.tag)
    this.#wire.sendAhead(message)
    return true
  }

  #takesMoreBehind(current: Task): boolean {
    const { frames } = this.#wire
    // Its messages are complete, and postgres.js will write no others for it, nor prepare anew what the next is sent as.
    if (!this.#sendsAtOnce || !current.wrote || frames.quiet || frames.midway) return false
    if (current.query.retried || current.turn === 'alone') return false
    // Nothing waits to be sent before it, and no request to cancel could hit it.
    if (this.#queue.size !== this.#ahead || this.#cancels > 0 || current.cancelling) return false
    return current.ahead !== undefined || (!current.own && KnownStatements.allow(current.query))
  }

  /** Whose answer comes next. */
  get serving(): RawQuery | undefined {
    return this.#current?.query
  }

  get #ahead(): number {
    return this.#wire.frames.ahead
  }

  /** How many queries have been sent and not been answered. */
  get unanswered(): number {
    return (this.#current ? 1 : 0) + this.#ahead
  }

  /**
   * Has a query run once more, alone, instead of failing with an error that is none of its own, and says that it has had
   * no effect: its plan was out of date, or a request to cancel the query before it came too late for that one.
   * postgres.js would send it again at once, between answers to others.
   */
  #spare(task: Task): void {
    const { query } = task
    const { reject } = query
    query.prepared = false
    settleBy(query, {
      reject: (error) => {
        if (task.turn === 'first' && !task.cancelling && this.#isNotIts(task, error)) task.turn = 'again'
        else reject(error)
      },
    })
  }

  #isNotIts(task: Task, error: unknown): boolean {
    // Otherwise it is none of the server's: a signal's reason may be anything, another query's error as well.
    if (this.#current !== task || !this.#wire.frames.quiet) return false
    const { code, routine } = error as { readonly code?: unknown; readonly routine?: unknown }
    if (task.mayBeHit && code === queryCancelled) return true
    if (typeof routine !== 'string' || !ofPlans.has(routine)) return false
    this.#inner.statements?.forget()
    return true
  }

  /** Whether its reader goes on by itself shows when what it has called has returned. */
  async #refuseIfBusy(task: Task): Promise<void> {
    const unfinished = await this.isUnfinished()
    const open = this.#current && this.openFor(this.#current.query)
    if (!unfinished || !open || !this.#queue.remove(task)) return
    task.query.reject(new SessionBusyError(open))
    task.done()
  }

  /** Sends BEGIN with what is run next. Where that fails, so does this, and nothing of it has been done. */
  beginWithNext(text: string): void {
    this.#wire.prelude = new Prelude(text)
  }

  /** What is run next begins no transaction any more. */
  withdrawBegin(): void {
    if (this.begins) this.#wire.prelude = undefined
  }

  /** Runs a statement of the pool's own. The signal ends the waiting, not the statement. */
  async ask(text: string, parameters: readonly unknown[] = [], signal?: AbortSignal): Promise<readonly Row[]> {
    return ownRows(await this.askTask(text, { parameters, signal }).answer)
  }

  /** As `ask`, for those who look at no rows; the task tells whether the statement went out. `told`: the option `debug` hears of it. */
  askTask(text: string, { parameters = [], signal, told = false }: AskOptions = {}): Asked {
    const query = ownQuery(text, parameters)
    query.isRaw = true
    const answer = orAborted<unknown>(query, signal)
    return { answer, task: this.run(query, { own: true, told }) }
  }

  /** Resolves when it is idle; rejects when it is lost, or with the signal's reason. */
  whenIdle(signal?: AbortSignal): Promise<void> {
    if (this.#lost) return Promise.reject(new ConnectionLostError(this.#lost.cause))
    if (this.idle) return Promise.resolve()
    const waiter = deferred<void>()
    this.#idleWaiters.push(waiter)
    return orAborted<void>(waiter.promise, signal)
  }

  /** Cancels one query: before it is sent, or on the server. Nothing happens if it is not on this connection. */
  cancel(query: RawQuery): void {
    if (this.#current?.query === query) return this.#cancelCurrent()
    for (const task of this.#queue) if (task.query === query) return this.#cancelQueued(task)
  }

  /** What the server has already is cancelled there when its turn has come, if that is not too late. */
  #cancelQueued(task: Task): void {
    if (task.ahead) {
      if (task.cancelling) return
      task.cancelling = true
      rejectEarly(task.query, new QueryCancelledError())
      task.stopped()
      return
    }
    this.#queue.remove(task)
    cancelUnsent(task.query)
    task.done()
  }

  /** Cancels what runs and what waits. */
  cancelAll(): void {
    for (const task of Array.from(this.#queue)) this.#cancelQueued(task)
    this.#cancelCurrent()
  }

  // ── Ending ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Ends the session. Resolves when the server has let it go, which its own end of the stream tells; rejects when the
   * stream ended otherwise, or with the signal's reason.
   */
  async end(signal: AbortSignal): Promise<void> {
    const busy = this.#current !== undefined && !this.#wire.frames.quiet
    const cause = new Error('the pool closed it')
    this.#lose(cause)
    if (this.#wire.peerEnded) return
    const onAbort = (): void => this.#wire.kill(cause)
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
    try {
      // The server reads the goodbye after the statement it is at. A pooler reads it at once, and forgets whom to cancel.
      if (busy) await sendCancelRequest(this.#address, this.identity, signal).catch(nothing)
      this.#wire.hangUp(cause)
      await this.#ended(signal)
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** The server reads the goodbye after all that it was sent before: each of those that are left is to be stopped, too. */
  async #ended(signal: AbortSignal): Promise<void> {
    const { released } = this.#wire
    // One that comes between two statements stops nothing.
    while (this.#ahead > 0 && !this.#wire.peerEnded && !signal.aborted) {
      await Promise.race([released, sleep(stopNextMs)])
      if (!this.#wire.peerEnded) await sendCancelRequest(this.#address, this.identity, signal).catch(nothing)
    }
    await released
  }

  // ── The wire's news ────────────────────────────────────────────────────────────────────────────────────────────

  #handOver(task: Task): void {
    const { query } = task
    this.#current = task
    if (task.own !== this.#plain) this.#inner.plain((this.#plain = task.own))
    if (!task.own) keepStream(task, this.#streaming)
    if (this.#wire.prelude?.unsent) this.#inner.tell(this.#wire.prelude.text)
    if (task.ahead) this.#wire.expect(task.ahead)
    else query.watch?.sent?.(this.identity.tag)
    this.#wire.readRows(
      !task.own && this.#inner.plainRows && RowReader.canRead(query) ? new RowReader(query) : undefined,
    )
    const sentAtOnce = sendAtOnce(() => this.#inner.handler(query))
    // A long message is sent in any case.
    if (sentAtOnce || !task.wrote) this.#sendsAtOnce = sentAtOnce
    if (task.ahead) {
      query.prepared = false
      if (this.#wire.expects) return this.#lose(new Error('bug: postgres.js did not write what was sent'))
    }
    if (task.own || query.string === undefined) return
    // What is no text by itself may be another one each time.
    task.trace = typeof query.string === 'string' ? traceOfText(query.string) : 'session'
    this.traces.sent(task.trace)
  }

  #wrote(): void {
    const task = this.#current
    // The stream of a COPY that has ended may still say so, which means nothing to the server.
    if (!task || task.wrote || this.#wire.frames.quiet) return
    task.wrote = true
    if (task.cancelling) this.#sendCancel()
  }

  /** postgres.js writes one more Sync at the end of a cursor's answer, and would take the one made up for the end. */
  #mending(): void {
    if (this.#current?.query.cursorFn) this.#current.query.cursorFn = undefined
  }

  #arrived(): void {
    const { frames } = this.#wire
    if (frames.fatal) return this.#lose(undefined)
    const task = this.#current
    if (!task) return
    if (frames.quiet) {
      // postgres.js sends it again, but has not yet.
      if (task.query.retried && !task.retried) {
        task.retried = true
        task.wrote = false
      }
      this.#settle()
    } else if (task.query.cursorFn && !task.query.active && frames.midway) {
      this.#lose(new Error('a portion of a cursor could not be read'))
    } else if (task.cancelling && frames.suspended) {
      // The request came too late for this portion.
      this.#stopReading(task)
    }
  }

  /** The current query is over as soon as the wire is quiet and nothing that is meant for it is on its way. */
  #settle(): void {
    const task = this.#current
    if (!task || !task.wrote || !this.#wire.frames.quiet) return
    // Those that have been sent cannot be kept from it any more.
    if (this.#cancels > 0 && this.#ahead === 0) return
    this.#current = undefined
    this.#wire.drain(false)
    const tags = this.#wire.frames.takeTags()
    if (!task.own) this.traces.answered(task.trace, tags)
    // Its answer may be in the rest of what has come.
    const next = this.#ahead > 0 ? this.#queue.shiftFront() : undefined
    if (next) this.#handOver(next)
    if (task.turn === 'again') this.#runAlone(task)
    else {
      const { statements } = this.#inner
      // What was sent ahead is known.
      if (statements && !task.ahead) learn(statements, task.query, tags.size > 0)
      task.done()
    }
    if (this.#current) return
    if (this.#queue.size > 0) queueMicrotask(this.#advance)
    else if (this.#idleWaiters.length > 0 && this.idle) this.#wake()
  }

  /** After all that has been sent. */
  #runAlone(task: Task): void {
    task.turn = 'alone'
    if (this.#lost) {
      task.query.reject(new ConnectionLostError(this.#lost.cause))
      return task.done()
    }
    task.ahead = undefined
    task.wrote = false
    // postgres.js has made texts of them.
    task.query.parameters = undefined
    this.#queue.pushBack(task)
  }

  readonly #advance = (): void => {
    if (this.#current || this.#cancels > 0 || this.#lost) return
    const task = this.#queue.shiftFront()
    if (task) this.#handOver(task)
  }

  #wake(): void {
    const waiters = this.#idleWaiters
    this.#idleWaiters = []
    for (const waiter of waiters) waiter.resolve()
  }

  #cancelCurrent(): void {
    const task = this.#current
    if (!task || task.cancelling) return
    task.cancelling = true
    if (task.wrote) this.#stop(task)
    task.stopped()
  }

  /** The server hears of a request to cancel only where it is at work. */
  #stop(task: Task): void {
    const { frames } = this.#wire
    if (frames.suspended) this.#stopReading(task)
    else if (frames.copy === 'in') {
      task.stream?.destroy(new QueryCancelledError())
    } else {
      if (task.stream) this.#leaveStream(task)
      this.#sendCancel()
    }
  }

  /** A cursor between two portions: nothing but its reader tells that some are missing. */
  #stopReading({ query }: Task): void {
    rejectEarly(query, new QueryCancelledError())
    query.reader?.leave()
  }

  readonly #streaming: StreamListener = {
    opened: (task) => {
      if (task.cancelling) this.#stop(task)
    },
    closed: (task) => {
      if (task !== this.#current || task.left || this.#wire.frames.copy !== 'out') return
      this.#leaveStream(task)
      this.#cancelCurrent()
    },
  }

  /** Nobody reads it: what still comes is dropped. */
  #leaveStream(task: Task): void {
    task.left = true
    task.stream?.destroy(new QueryCancelledError())
    this.#wire.drain(true)
  }

  /** A session that had not begun with the statement takes no notice: it is asked again, until it has answered. */
  #sendCancel(againMs = cancelAgainMs): void {
    const task = this.#current
    this.#cancels++
    for (const next of this.#queue) if (next.ahead) next.mayBeHit = true
    const settled = (): void => {
      this.#cancels--
      const again = (): void => {
        if (this.#current === task && !this.#lost && !this.#wire.frames.quiet) this.#sendCancel(2 * againMs)
      }
      setTimeout(again, againMs).unref()
      this.#settle()
      this.#advance()
      if (this.#idleWaiters.length > 0 && this.idle) this.#wake()
    }
    sendCancelRequest(this.#address, this.identity, AbortSignal.timeout(cancelTimeoutMs)).then(settled, settled)
  }

  #lose(cause: unknown): void {
    if (this.#lost) return
    const said = this.#wire.frames.fatal ?? this.#parting
    const reason = said ? serverError(said) : cause
    this.#lost = { cause: reason }
    const task = this.#current
    this.#current = undefined
    const error = new ConnectionLostError(reason)
    this.#wire.cut(error)
    if (task) {
      // Not all that is unfinished is known to postgres.js.
      task.query.reject(error)
      task.done()
    }
    for (let next = this.#queue.shiftFront(); next; next = this.#queue.shiftFront()) {
      next.query.reject(new ConnectionLostError(reason))
      next.done()
    }
    for (const waiter of this.#idleWaiters) waiter.reject(error)
    this.#idleWaiters = []
    for (const fn of this.#onLost) fn(reason)
    this.hearing?.lost(reason)
  }
}

const noOptions: RunOptions = {}
/** The server's code for a query that was cancelled. */
const queryCancelled = '57014'
/** Where the server finds that it cannot run a prepared statement as it is: the errors for which postgres.js sends it again. */
const ofPlans: ReadonlySet<string> = new Set([
  'FetchPreparedStatement',
  'RevalidateCachedQuery',
  'transformAssignedExpr',
])

/** Whether its reader wants no more, said or not: a stream that was destroyed tells so a moment later. */
function hasLeft({ left, stream, query }: Task): boolean {
  return left || (stream?.destroyed ?? false) || (query.reader?.left ?? false)
}

/** What its answer tells of the statements that are prepared. */
function learn(statements: KnownStatements, query: RawQuery, succeeded: boolean): void {
  if (query.retried || query.onlyDescribe) statements.forget()
  else if (succeeded && KnownStatements.allow(query)) statements.learn(query)
}

function nothing(): void {}
