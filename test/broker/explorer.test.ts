import { describe, expect, test } from 'vitest'
import { explore, walk } from './support/explorer.ts'
import { mutations } from './support/mutations.ts'
import type { Options } from './support/world.ts'

// Every interleaving of single accesses to shared memory, of the code that runs in production, over simulated pools.
// MILLPOND_EXPLORE=all explores larger worlds, for some minutes.
const all = process.env['MILLPOND_EXPLORE'] === 'all'
const bound = all ? 1_500_000 : 250_000
const timeout = all ? 600_000 : 60_000

const worlds: readonly Options[] = [
  { members: 2, slots: 1, acquires: [2, 1], eager: true },
  { members: 2, slots: 2, acquires: [2, 1] },
  { members: 2, slots: 1, acquires: 1, aborts: 1, leaves: 1 },
  { members: 2, slots: 1, acquires: 1, failures: 1 },
  { members: 2, slots: 1, acquires: [1, 0], leaves: 1, joins: 1 },
  { members: 2, slots: 1, acquires: 1, aborts: 1, deaths: 1 },
  { members: 2, slots: 1, acquires: 1, deaths: 1, stubborn: 1, takeOver: true },
  { members: 2, slots: 1, max: 2, acquires: [2, 1], destroys: 1 },
  { members: 2, slots: 1, acquires: [2, 1], timed: true },
  { members: 2, slots: 1, acquires: [2, 1], takeOver: true },
  { members: 2, slots: 2, acquires: [2, 0], resizes: [1] },
  { members: 2, slots: 2, limit: 1, acquires: [2, 0], resizes: [2] },
]

const largeWorlds: readonly Options[] = [
  { members: 2, slots: 1, acquires: [1, 0], deaths: 1, joins: 1 },
  { members: 2, slots: 1, acquires: 1, failures: 1, aborts: 1 },
  { members: 2, slots: 1, acquires: 2 },
  { members: 2, slots: 1, acquires: 2, aborts: 1, deaths: 1 },
  { members: 2, slots: 1, acquires: 2, aborts: 1, leaves: 1 },
  { members: 2, slots: 1, acquires: 2, failures: 1 },
  { members: 2, slots: 2, acquires: 2 },
  { members: 2, slots: 2, acquires: [2, 1], deaths: 1 },
  { members: 2, slots: 1, max: 2, acquires: 2, destroys: 1 },
  { members: 2, slots: 1, acquires: 2, timed: true },
  { members: 3, slots: 1, acquires: 1 },
  { members: 2, slots: 2, limit: 1, max: 1, acquires: 1, resizes: [2] },
  { members: 2, slots: 2, acquires: 2, resizes: [1, 2] },
  { members: 2, slots: 2, acquires: [2, 1], resizes: [1], deaths: 1 },
]

describe('settle and release, through all interleavings', () => {
  let total = 0
  for (const world of all ? [...worlds, ...largeWorlds] : worlds) {
    test(`lose no permit and forget no waiter: ${JSON.stringify(world)}`, { timeout }, () => {
      const startedAt = performance.now()
      const { states, complete, broken } = explore(world, bound)
      total += states
      const ms = Math.round(performance.now() - startedAt)
      console.log(
        `${states} states${complete ? '' : ' (not all)'}, ${total} so far, ${ms} ms: ${JSON.stringify(world)}`,
      )
      expect(broken).toBeUndefined()
      if (!all) expect(complete).toBe(true)
    })
  }
})

describe('The explorer notices when a rule is left out', () => {
  for (const { rule, options, mutation } of mutations) {
    test(rule, { timeout }, () => {
      expect(explore({ ...options, mutation }, bound).broken).toBeDefined()
    })
  }
})

describe('settle and release, along random ways', () => {
  const worldsToWalk: readonly Options[] = [
    { members: 3, slots: 2, acquires: 4, aborts: 2, failures: 2, destroys: 2 },
    { members: 4, slots: 3, max: 2, acquires: 4, aborts: 2, failures: 2, destroys: 2, takeOver: true },
    { members: 4, slots: 2, max: 3, acquires: 4, deaths: 2, leaves: 1, joins: 2, failures: 1, stubborn: 2 },
    { members: 3, slots: 4, acquires: 5, deaths: 1, leaves: 1, joins: 1, aborts: 2, destroys: 2 },
    { members: 4, slots: 3, acquires: 4, timed: true, destroys: 2, deaths: 1 },
    { members: 3, slots: 4, limit: 2, acquires: 5, resizes: [4, 1, 3], destroys: 1, failures: 1 },
    { members: 3, slots: 3, acquires: 5, resizes: [1, 3, 2], deaths: 1, joins: 1, takeOver: true },
  ]
  const first = Number(process.env['MILLPOND_SEED'] ?? Math.trunc(Math.random() * 2 ** 31))
  const walks = all ? 20_000 : 300
  for (const world of worldsToWalk) {
    test(`lose no permit and forget no waiter: ${JSON.stringify(world)}, seeds from ${first}`, { timeout }, () => {
      for (let seed = first; seed < first + walks; seed++) {
        const { broken } = walk(world, random(seed), 100_000)
        expect(broken, `MILLPOND_SEED=${seed}`).toBeUndefined()
      }
    })
  }
})

function random(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
