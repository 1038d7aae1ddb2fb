/** How long the thread that serves may take to say that it keeps no connections: it may be blocked. */
const roomMs = 1_000
/** Between the first two restarts in a row; the first one has none. */
const firstPauseMs = 100
const longestPauseMs = 5_000
/** A server that has lived so long is not one that keeps failing. */
const soundAfterMs = 10_000
/** Restarts are counted within this time. */
const windowMs = 60_000

/** How one thread of a server is. */
export type ServerState = 'new' | 'starting' | 'ready' | 'restarting' | 'failed' | 'stopping'

/** What the machine has done by others. What comes of it they report by `ready()`, `failed()`, `kept()` and `ended()`. */
export interface SeatHost<L> {
  now(): number
  /** Calls back after that time; returns what takes it back. */
  after(ms: number, callback: () => void): () => void
  begin(): L
  /** Whether its pool keeps its `min` connections. */
  keep(life: L, connections: 'none' | 'min'): void
  /** Lets it finish what it is at, and ends it. */
  retire(life: L): void
  changed(): void
  replaced(life: L, former: L | undefined): void
  restarts(why: string, pauseMs: number): void
  givenUp(why: string, times: number, cause: unknown): void
}

/** What one who waits is told: an error if it came to nothing. */
type Done = (failure?: Failure) => void

interface Failure {
  readonly error: unknown
}

/**
 *   room → next         the current life keeps no connections any more, has ended, or does not answer
 *   next → leaving      the next life is ready, and takes the place of the current one
 *   next, leaving → –   the next one has ended before, or the leaving one has
 */
interface Reload {
  readonly done: Done
  stage: 'room' | 'next' | 'leaving'
  /** Takes back the end of the wait for room. */
  readonly hurry: () => void
  /** Why the next life does not get ready. */
  failure: Failure | undefined
}

/** How a life ended: `why` in words. */
export interface End {
  readonly why: string
  readonly cause: unknown
}

/**
 * The place of one thread of a server, in which one life follows the other: which lives there are, and what is done when
 * something happens to one of them. It waits for nothing; who carries it out is in `supervise.ts`.
 *
 * State
 *   new → starting   the first life begins; if it does not get ready, no other follows
 *   ready            the current life is
 *   restarting       a life has ended by itself: another one follows at once, or, while lives are short, after a pause
 *                    that doubles
 *   failed           too many lives have ended within a minute; only a reload begins another one
 *   stopping         every life is to end; no other follows
 *
 *   current          the life that serves, or that begins with nobody there
 *   next             in a reload the one that begins while the current one goes on
 *   leaving          in a reload the former one, which has been told to finish
 *   pause            takes the next restart back
 *   reload           waits for room (the limit has none for what two lives keep), for the next, then for the leaving one
 *
 * Always, at the end of every method
 *   1. what has begun has one role, until it has ended: none is forgotten
 *   2. there is a next life in the stage of a reload that waits for it, and only then; likewise a leaving one
 *   3. a pause is only in `restarting`, with no current life and no reload that brings one: never do two begin at a time
 *   4. in `ready` there is a current life; in `restarting` one, a pause, or a reload that brings one: it goes on
 *   5. in `failed` there is no current life
 *   6. in `stopping` there is neither a pause nor a wait for room: nothing begins
 * `assertInvariants()` checks 2–6.
 */
export class SeatMachine<L extends { readonly startedAt: number }> {
  readonly #host: SeatHost<L>
  readonly #maxRestarts: number
  state: ServerState = 'new'
  current: L | undefined
  next: L | undefined
  leaving: L | undefined
  #pause: (() => void) | undefined
  #start: Done | undefined
  #reload: Reload | undefined
  /** When lives have ended by themselves, within the window. */
  #ends: number[] = []
  /** Restarts in a row, each after a life that was short; the first one is that after any life. */
  #inARow = 0
  /** How often it was started again since its beginning. */
  restarts = 0

  constructor(host: SeatHost<L>, maxRestarts: number) {
    this.#host = host
    this.#maxRestarts = maxRestarts
  }

  /** Calls back when the first life is ready. */
  start(done: Done): void {
    this.#start = done
    this.current = this.#host.begin()
    this.#move('starting')
  }

  /**
   * Calls back when the current life has a successor and has ended, or the successor has not got ready and has ended. Not
   * to be called while another one is under way.
   */
  reload(done: Done): void {
    if (this.state === 'stopping') return done()
    this.#pause?.()
    this.#pause = undefined
    const hurry = this.#host.after(roomMs, () => this.#beginNext())
    this.#reload = { done, stage: 'room', hurry, failure: undefined }
    if (this.current) this.#host.keep(this.current, 'none')
    else this.#beginNext()
  }

  /** No other life begins. Returns those that are to end. */
  stop(): readonly L[] {
    this.#pause?.()
    this.#pause = undefined
    this.#move('stopping')
    if (this.#reload?.stage === 'room') this.#reloaded()
    return [this.current, this.next, this.leaving].filter((life) => life !== undefined)
  }

  /** The `start` of its module has resolved. */
  ready(life: L): void {
    if (life === this.next && this.state !== 'stopping') return this.#replace(life)
    if (life !== this.current) return
    if (this.state === 'starting' || this.state === 'restarting') this.#move('ready')
    this.#started()
  }

  /** It does not get ready; its end follows. */
  failed(life: L, error: unknown): void {
    if (life === this.next && this.#reload) this.#reload.failure = { error }
    if (life === this.current) this.#started({ error })
  }

  /** It keeps no connections any more. */
  kept(life: L): void {
    if (life === this.current) this.#beginNext()
  }

  /** Its thread is no more; said of every life, once, and last. */
  ended(life: L, end: End): void {
    if (life === this.leaving) {
      this.leaving = undefined
      this.#reloaded()
    } else if (life === this.next) {
      this.next = undefined
      this.#notReplaced(life, end)
    } else if (life === this.current) {
      this.current = undefined
      if (this.state === 'ready' || this.state === 'restarting') this.#lost(life, end)
    }
  }

  /** @internal */
  assertInvariants(): void {
    const { state, current, next, leaving } = this
    const stage = this.#reload?.stage
    const brings = stage === 'room' || stage === 'next'
    const pauses = this.#pause !== undefined
    const holds = (rule: number, is: boolean): void => {
      if (!is) throw new Error(`invariant ${rule} of a seat is broken (${state}, reload: ${stage})`)
    }
    holds(2, (stage === 'next') === (next !== undefined) && (stage === 'leaving') === (leaving !== undefined))
    holds(3, !pauses || (state === 'restarting' && !current && !brings))
    holds(4, state !== 'ready' || current !== undefined)
    holds(4, state !== 'restarting' || current !== undefined || pauses || brings)
    holds(5, state !== 'failed' || current === undefined)
    holds(6, state !== 'stopping' || (!pauses && stage !== 'room'))
  }

  #move(to: ServerState): void {
    this.state = to
    this.#host.changed()
  }

  #started(failure?: Failure): void {
    const done = this.#start
    this.#start = undefined
    done?.(failure)
  }

  #reloaded(failure?: Failure): void {
    const reload = this.#reload
    this.#reload = undefined
    reload?.hurry()
    reload?.done(failure)
  }

  #beginNext(): void {
    if (this.#reload?.stage !== 'room') return
    this.#reload.stage = 'next'
    this.#reload.hurry()
    this.next = this.#host.begin()
  }

  #replace(life: L): void {
    const former = this.current
    this.next = undefined
    this.current = life
    this.leaving = former
    if (this.#reload) this.#reload.stage = 'leaving'
    this.#ends = []
    this.#inARow = 0
    this.#move('ready')
    this.#host.replaced(life, former)
    if (former) this.#host.retire(former)
    else this.#reloaded()
  }

  #notReplaced(life: L, end: End): void {
    const reload = this.#reload
    this.#reload = undefined
    if (this.state === 'stopping') return reload?.done()
    // Only now is there room: what the other one kept has counted until its thread had ended.
    if (this.current) this.#host.keep(this.current, 'min')
    else if (this.state !== 'failed') this.#lost(life, end)
    reload?.done(reload.failure ?? { error: end.cause })
  }

  /** A life has ended by itself, and with it there is none. */
  #lost({ startedAt }: L, { why, cause }: End): void {
    const now = this.#host.now()
    this.#inARow = now - startedAt > soundAfterMs ? 1 : this.#inARow + 1
    this.#ends = [...this.#ends.filter((at) => now - at < windowMs), now]
    // A reload that has not brought one yet is to bring it, whatever there was.
    const isReplaced = this.#reload !== undefined && this.#reload.stage !== 'leaving'
    if (this.#ends.length > this.#maxRestarts && !isReplaced) {
      this.#move('failed')
      return this.#host.givenUp(why, this.#ends.length, cause)
    }
    this.restarts++
    this.#move('restarting')
    if (isReplaced) {
      this.#host.restarts(why, 0)
      return this.#beginNext()
    }
    const pauseMs = this.#inARow === 1 ? 0 : Math.min(longestPauseMs, firstPauseMs * 2 ** (this.#inARow - 2))
    this.#host.restarts(why, pauseMs)
    this.#pause = this.#host.after(pauseMs, () => {
      this.#pause = undefined
      this.current = this.#host.begin()
    })
  }
}
