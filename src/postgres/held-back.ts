import { deferred } from '../deferred.ts'
import type { Lease } from '../lease.ts'
import type { Connection } from './connection.ts'
import { settleBy } from './query.ts'
import type { RawQuery } from './query.ts'

/**
 * Has a query settle when its connection has been closed, or when it has left the queue for one: a task that is told before
 * has ended by then, and the event loop of its thread stands still (`frozen-loop.ts`). Called before anybody else listens
 * to the query.
 */
export function holdBack(query: RawQuery): void {
  const { resolve, reject } = query
  const settle = (fn: () => void): void => {
    query.active = false
    // The stream of a COPY is needed before its connection is free.
    if (query.givenBack && !query.streaming) void allOf(query).then(fn)
    else fn()
  }
  settleBy(query, {
    resolve: (value) => settle(() => resolve(value)),
    reject: (error) => settle(() => reject(error)),
  })
}

/** It may be given a connection after it has been given up. */
async function allOf(query: RawQuery): Promise<void> {
  let last: Promise<void> | undefined
  while (last !== query.givenBack) {
    last = query.givenBack
    await last
  }
}

/** Runs a query that is held back. */
export function runHeldBack(lease: Lease<Connection>, query: RawQuery): void {
  const { connection } = lease
  const { promise, resolve } = deferred<void>()
  query.givenBack = promise
  const release = (): void => {
    if (!lease.released) void lease.release().then(resolve)
  }
  connection.run(query, { done: release, stopped: release })
}
