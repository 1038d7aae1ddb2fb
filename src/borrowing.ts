import { AsyncLocalStorage } from 'node:async_hooks'

/** A lease, as somebody sees it who may have to take it away. */
export interface Borrowed {
  readonly released: boolean
  release(): Promise<void>
  destroy(reason?: string): Promise<void>
}

/** Is told of it. Has given it back, and throws, if it comes too late. */
export type Lent = (lease: Borrowed) => void

/** Answers for the leases that a callback gets to hold. */
export interface Borrower {
  /**
   * One is asked for. `stream`: by a cursor or a COPY, whose end is seen late; the stack that made it, as far as that is
   * known.
   */
  asks(pool: object, stream: string | undefined): Lent | undefined
  /** What may hold some until it has settled. */
  readonly running: Set<Promise<unknown>>
}

const storage = new AsyncLocalStorage<Borrower | undefined>()
/** Without any, nobody is looked for: threads that run no tasks. */
let hasBorrowers = false

/** Runs `fn`: the borrower answers for whatever that calls, now or later. */
export function whileBorrowing<R>(borrower: Borrower, fn: () => R): R {
  hasBorrowers = true
  return storage.run(borrower, fn)
}

/** Runs `fn`, for which nobody answers. */
export function asNobody<R>(fn: () => R): R {
  return hasBorrowers && storage.getStore() ? storage.run(undefined, fn) : fn()
}

/** To be called where a lease is asked for; what it returns, with the lease. */
export function asking(pool: object, stream?: string): <L extends Borrowed>(lease: L) => L {
  const lent = hasBorrowers ? storage.getStore()?.asks(pool, stream) : undefined
  return lent ? (lease) => (lent(lease), lease) : itself
}

/** Tells the borrower of a promise that it is told to expect until it has settled. */
export function running<R>(promise: Promise<R>): Promise<R> {
  const borrower = hasBorrowers ? storage.getStore() : undefined
  if (!borrower) return promise
  const told = settle()
  borrower.running.add(told)
  return told

  async function settle(): Promise<R> {
    try {
      return await promise
    } finally {
      borrower?.running.delete(told)
    }
  }
}

function itself<T>(value: T): T {
  return value
}
