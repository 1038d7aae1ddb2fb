import { AsyncLocalStorage } from 'node:async_hooks'
import { asNobody } from '../borrowing.ts'

/** A transaction or a savepoint, as far as it matters here. */
export interface Ending {
  readonly ended: boolean
}

/** The callback of a scope, as everything that it calls, now or later, can find out. */
interface Place {
  readonly of: object
  readonly scope: Ending
  /** Queries made here join the scope; false inside of `outside`. */
  readonly joins: boolean
  readonly outer: Place | undefined
}

const storage = new AsyncLocalStorage<Place | undefined>()

/**
 * Which transaction of one pool the caller is in.
 *
 * State: the places around the caller, innermost first. They travel with the caller's async context, those of all
 * pools together; each pool looks at its own.
 *
 * A place outlives its transaction: what was left behind in it is still in it, and learns that it has ended.
 */
export class Ambient<S extends Ending> {
  readonly #joins: boolean

  /** `joins`: the pool's option `ambient`. Without it, callers can only be told that they are in a transaction. */
  constructor(joins: boolean) {
    this.#joins = joins
  }

  /** The scope that queries made here belong to. */
  get joined(): S | undefined {
    const place = this.#innermost(storage.getStore())
    return place?.joins ? (place.scope as S) : undefined
  }

  /** Every scope in whose callback the caller is, innermost first, those that have ended and those that it left too. */
  *around(): Generator<S> {
    for (let place = this.#innermost(storage.getStore()); place; place = this.#innermost(place.outer)) {
      yield place.scope as S
    }
  }

  /** Runs `fn` in a scope's callback. */
  run<R>(scope: S, fn: () => R): R {
    const outer = withoutHidden(storage.getStore(), [this])
    return storage.run({ of: this, scope, joins: this.#joins, outer }, fn)
  }

  /** Runs `fn` where queries join nothing of this pool. */
  outside<R>(fn: () => R): R {
    const outer = storage.getStore()
    const place = this.#innermost(outer)
    return place?.joins ? storage.run({ of: this, scope: place.scope, joins: false, outer }, fn) : fn()
  }

  #innermost(from: Place | undefined): Place | undefined {
    let place = from
    while (place && place.of !== this) place = place.outer
    return place
  }
}

/**
 * The places that still tell something: all but those that have ended and that a nearer one hides. A loop that goes on
 * from callback to callback would be in all of them. One that is not hidden stays: only so does it tell that it has ended.
 */
function withoutHidden(place: Place | undefined, nearer: readonly object[]): Place | undefined {
  if (!place) return undefined
  const isHidden = nearer.includes(place.of)
  const outer = withoutHidden(place.outer, isHidden ? nearer : [...nearer, place.of])
  if (isHidden && place.scope.ended) return outer
  return outer === place.outer ? place : { ...place, outer }
}

/** Runs `fn` in nobody's transaction or task: what the pool does for itself, and what it calls, is not part of a caller's. */
export function outsideAll<R>(fn: () => R): R {
  return storage.getStore() === undefined ? asNobody(fn) : storage.run(undefined, () => asNobody(fn))
}
