import { PoolError } from '../errors.ts'
import type { Lease } from '../lease.ts'
import type { Connection } from './connection.ts'
import { Turn } from './scope-turns.ts'

/** What a transaction or a savepoint stands on: a connection on which nobody else runs anything meanwhile. */
export interface Ground {
  readonly statements: Statements
  /** The transaction itself, and no savepoint in it. */
  readonly outermost: boolean
  /** Throws before `enter` has resolved, and once it belongs to somebody else. */
  readonly connection: Connection
  /** Its own, while it is held. */
  readonly lease: Lease<Connection> | undefined
  /** Waits for the connection; undefined if it could be had at once. */
  enter(): Promise<void> | undefined
  /** Ends the waiting: `enter` rejects with this. Does nothing once it is there. */
  quit(why: unknown): void
  /** Gives it back; waits until that is done. Does nothing if it was never had. */
  leave(): Promise<void>
  /** The connection is of no use any more. */
  ruin(error: Error): void
}

export interface Statements {
  readonly begin: string
  readonly commit: string
  readonly rollback: string
}

const notEntered = 'bug: a connection was used before it was there'

/** Where leases come from. */
export interface LeaseSource {
  /** One that can be had at once. Throws where none may be had any more. */
  now(): Lease<Connection> | undefined
  wait(): Queued
}

/** Somebody in the pool's queue. */
export interface Queued {
  readonly promise: Promise<Lease<Connection>>
  leave(why: unknown): void
}

/** A lease of its own. */
export class LeasedGround implements Ground {
  readonly statements: Statements
  readonly outermost = true
  readonly #source: LeaseSource
  #waiting: Queued | undefined
  #lease: Lease<Connection> | undefined
  #ruined: Promise<void> | undefined

  constructor(begin: string, source: LeaseSource) {
    this.statements = { begin, commit: 'COMMIT', rollback: 'ROLLBACK' }
    this.#source = source
  }

  get connection(): Connection {
    if (!this.#lease) throw new PoolError('ERR_LEASE_RELEASED', notEntered)
    return this.#lease.connection
  }

  get lease(): Lease<Connection> | undefined {
    return this.#lease?.released ? undefined : this.#lease
  }

  enter(): Promise<void> | undefined {
    this.#lease = this.#source.now()
    return this.#lease ? undefined : this.#wait()
  }

  async #wait(): Promise<void> {
    this.#waiting = this.#source.wait()
    this.#lease = await this.#waiting.promise
    this.#waiting = undefined
  }

  quit(why: unknown): void {
    this.#waiting?.leave(why)
  }

  leave(): Promise<void> {
    const { lease } = this
    if (!lease) return this.#ruined ?? Promise.resolve()
    // What is run next is somebody else's.
    if (lease.lives) lease.connection.withdrawBegin()
    return lease.release()
  }

  ruin(error: Error): void {
    this.#ruined = this.#lease?.destroy(error.message)
  }
}

/** The scope around a savepoint. */
export interface Surrounding {
  readonly connection: Connection
  take(turn: Turn): void
  ruin(error: Error): void
}

let savepoints = 0

/** A turn of the scope around it. */
export class SavepointGround implements Ground {
  readonly statements: Statements
  readonly outermost = false
  readonly lease: undefined = undefined
  readonly #around: Surrounding
  #done: (() => void) | undefined
  #quit: ((why: unknown) => void) | undefined

  constructor(around: Surrounding, { readOnly }: { readOnly: boolean }) {
    const name = `millpond_${++savepoints}`
    this.#around = around
    this.statements = {
      begin: `SAVEPOINT ${name}${readOnly ? '; SET TRANSACTION READ ONLY' : ''}`,
      commit: `RELEASE SAVEPOINT ${name}`,
      rollback: `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`,
    }
  }

  get connection(): Connection {
    if (!this.#done) throw new PoolError('ERR_LEASE_RELEASED', notEntered)
    return this.#around.connection
  }

  enter(): Promise<void> {
    return new Promise((resolve, reject) => {
      let left = false
      const begin = (done: () => void): void => {
        if (left) return done()
        this.#quit = undefined
        this.#done = done
        resolve()
      }
      this.#quit = (why) => {
        left = true
        reject(why)
      }
      this.#around.take(new Turn(begin, reject))
    })
  }

  quit(why: unknown): void {
    this.#quit?.(why)
  }

  leave(): Promise<void> {
    const done = this.#done
    this.#done = undefined
    done?.()
    return Promise.resolve()
  }

  ruin(error: Error): void {
    this.#around.ruin(error)
  }
}
