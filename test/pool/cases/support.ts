import type { Lease } from '../../../src/lease.ts'
import type { Pool } from '../../../src/pool.ts'
import type { FakeClock } from '../../../src/testing/index.ts'

/** Resolves when so much time has passed on this clock. */
export function after(clock: FakeClock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.setTimer(resolve, ms))
}

/** So many leases at once. */
export function lease<C>(pool: Pool<C>, count: number): Promise<Lease<C>[]> {
  return Promise.all(Array.from({ length: count }, () => pool.acquire()))
}

export async function releaseAll(leases: Iterable<Lease<unknown>>): Promise<void> {
  for (const one of leases) await one.release()
}

/** Numbers from 0 to 1, the same for the same seed. */
export function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
