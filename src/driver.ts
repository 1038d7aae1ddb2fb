/** What the other side needs to know a connection again, also from another thread and after its socket is gone. */
export interface Identity {
  /** The server's number for the session (PostgreSQL: the backend's pid). 0 where it is not known. */
  readonly pid: number
  /** What a request to cancel must show (PostgreSQL: the backend's secret key). 0 where there is none. */
  readonly secret: number
  /** The name that the session was opened with; unique, so that a number used again harms nobody. */
  readonly tag: string
}

/** How thoroughly a session is cleaned between two leases. */
export type ResetMode = 'auto' | 'full' | 'none'

/**
 * How to open, check, clean and close connections of one kind. The pool makes all decisions; a driver only does.
 *
 * Every `signal` is a deadline or a wish to stop; a driver that ignores it is not waited for.
 */
export interface Driver<C> {
  /**
   * Opens one connection that is ready for use. `tag` names the session where the server can show it.
   * Reject with a `ConnectError` to say whether retrying can help and whether the server may still count the session;
   * any other error counts as one that retrying may cure.
   */
  open(options: { signal: AbortSignal; tag: string }): Promise<C>
  /**
   * Resolves when the **other side** has let the connection go. Rejecting, or passing the deadline, leaves the
   * connection doubtful: it goes on counting until `reap` says otherwise. A driver without `reap` is taken at its
   * word: a close that settles, either way, is closed.
   */
  close(connection: C, signal: AbortSignal): Promise<void>
  /** One round trip; rejects if the connection is of no use any more. */
  ping(connection: C, signal: AbortSignal): Promise<void>
  /** Whether `reset` has anything to do. Asked at every release; without it every release resets. */
  needsReset?(connection: C, mode: ResetMode): boolean
  /** Makes the session as good as new. Rejecting closes the connection. */
  reset(connection: C, options: { mode: ResetMode; signal: AbortSignal }): Promise<void>
  /** Whether the connection is known to be of no use. Asked at every release; must not wait. */
  isBroken(connection: C): boolean
  /** Calls `fn` once, when the connection ends, whoever ended it; at once if it has ended already. */
  onClose(connection: C, fn: (cause: unknown) => void): void
  /** What a reaper needs, should this connection end without evidence. */
  identity(connection: C): Identity
  /** Keeps the process alive for the connection's sake (opening, leased, closing) … */
  ref?(connection: C): void
  /** … or does not (idle). */
  unref?(connection: C): void
  /**
   * Ends a session whose end nobody saw, from outside, and resolves with true once the server does not count it any
   * more, with false when that could not be found out. `via` is a living connection lent for this, or undefined if
   * there is none: then the driver may open one of its own, since the permit that is in doubt covers it.
   */
  reap?(identity: Identity, options: { via: C | undefined; signal: AbortSignal }): Promise<boolean>
}
