import type { HistogramStats } from './histogram.ts'

/** Why a connection was closed. */
export type CloseReason =
  | 'idle'
  | 'lifetime'
  | 'uses'
  | 'evicted'
  | 'broken'
  | 'ping failed'
  | 'refused'
  | 'reset failed'
  | 'destroyed'
  | 'revoked'
  | 'reclaimed'
  | 'surplus'
  | 'closed'

/** A snapshot of one pool. Connections are counted in one state each; `open` counts all but `opening` and `closing`. */
export interface PoolStats {
  readonly name: string
  readonly phase: 'open' | 'draining' | 'closed'
  readonly min: number
  readonly max: number
  /** idle + leased + those being pinged or reset */
  readonly open: number
  readonly opening: number
  readonly idle: number
  readonly leased: number
  readonly closing: number
  /** Of the closing ones, those whose end nobody has seen: they count until they have been reaped. */
  readonly doubtful: number
  /** Acquires in the queue. */
  readonly waiting: number
  /** Since the pool was made: leases given … */
  readonly acquires: number
  /** … of which had to wait, */
  readonly acquiresWaited: number
  /** how long all of them together waited, in ms, */
  readonly waitedMs: number
  readonly longestWaitMs: number
  readonly timeouts: number
  readonly aborted: number
  /** Refused at once: queue full, pool closed, no broker … */
  readonly refused: number
  readonly opens: number
  readonly openFailures: number
  /** Connections that came back broken, or that could not be reset. */
  readonly badReturns: number
  /** Leases held longer than `leakAfterMs`. */
  readonly leaks: number
  /** How long acquires waited that had to wait; how long opening took; how long leases were held, with `timings`. */
  readonly waits: HistogramStats
  readonly openings: HistogramStats
  readonly uses: HistogramStats | undefined
  readonly closes: Readonly<Record<CloseReason, number>>
  /** The broker's numbers, where the pool shares a limit. */
  readonly broker: BrokerStats | undefined
}

/** A snapshot of one broker and all its members, read from shared memory. */
export interface BrokerStats {
  readonly name: string
  readonly limit: number
  /** Permits that serve: held by members, with or without a connection yet. */
  readonly held: number
  /** Permits whose connection is closing. */
  readonly closing: number
  /** Permits granted to a member that has not picked them up yet. */
  readonly granted: number
  /** Permits of dead members whose connections have not been reaped yet. */
  readonly limbo: number
  readonly free: number
  /** Permits handed from one member to another since the broker was made. */
  readonly moves: number
  /** Measured cost of a move: close + wake + connect, in ms. */
  readonly moveMs: number
  /** Connections that the server has refused since it had no room, since the broker was made. */
  readonly refusals: number
  /** For how long it has refused them and let none in, in ms; 0 while it has room. */
  readonly refusedForMs: number
  /** False once it has refused them for 10 s: the limit is more than the server, the role or the database has room for. */
  readonly limitFits: boolean
  readonly members: readonly MemberStats[]
}

/** One pool that shares the limit. */
export interface MemberStats {
  readonly threadId: number
  readonly held: number
  readonly closing: number
  readonly idle: number
  /** Connections it would open now if it had the permits. */
  readonly wants: number
  /** How long its oldest waiter has waited, in ms; 0 if nobody waits. */
  readonly waitingMs: number
  readonly min: number
  /** Permits it was given by others, and gave to others. */
  readonly received: number
  readonly given: number
  /**
   * For how long it has not answered another member that waits, in ms: its event loop may be blocked. 0 if it answers,
   * or if nobody has had a reason to ask.
   */
  readonly unresponsiveMs: number
}
