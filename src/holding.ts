import { AsyncLocalStorage } from 'node:async_hooks'

/** A lease that is held while a callback runs, as that callback's calls see it. */
export interface Holding {
  readonly pool: object
  /** The tag of its connection. */
  readonly connection: string
  readonly since: number
  /** Where it was acquired, if that was noted. */
  readonly acquiredAt: string | undefined
  /** Whether it is still held. */
  readonly holds: () => boolean
  readonly outer: Holding | undefined
}

const storage = new AsyncLocalStorage<Holding>()

/** Runs `fn`; whatever it calls, now or later, can be told that it holds this lease. */
export function whileHolding<R>(holding: Omit<Holding, 'outer'>, fn: () => R): R {
  const { pool, connection, since, acquiredAt, holds } = holding
  // Written out: what a spread makes is at first made in the old generation, and stays until a full collection.
  return storage.run({ pool, connection, since, acquiredAt, holds, outer: storage.getStore() }, fn)
}

/** The lease of this pool that the caller holds already, if any: it may be waiting for itself. */
export function heldBy(pool: object): Holding | undefined {
  let holding = storage.getStore()
  while (holding && !(holding.pool === pool && holding.holds())) holding = holding.outer
  return holding
}
