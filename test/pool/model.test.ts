import fc from 'fast-check'
import { expect, test } from 'vitest'
import { commands } from './model/commands.ts'
import { Run } from './model/run.ts'
import type { RunOptions } from './model/run.ts'

// The core beside a model that does the same with plain lists: whatever comes, both decide the same.

const seed = Number(process.env['SEED'] ?? Math.trunc(Math.random() * 2 ** 31))

const kinds = Object.entries(commands)

const command = fc.record({
  kind: fc.oneof(...kinds.map(([kind, [weight]]) => ({ weight, arbitrary: fc.constant(kind) }))),
  index: fc.nat({ max: 15 }),
  ms: fc.constantFrom(0, 1, 10, 49, 50, 99, 100, 101, 250, 400, 1_000),
})

const options: fc.Arbitrary<RunOptions> = fc
  .record({
    name: fc.constant('p'),
    min: fc.nat({ max: 2 }),
    max: fc.integer({ min: 2, max: 5 }),
    maxIdle: fc.nat({ max: 5 }),
    order: fc.constantFrom('lifo', 'fifo'),
    maxWaiting: fc.constantFrom(Infinity, 0, 1, 3),
    maxUses: fc.constantFrom(Infinity, 1, 2, 5),
    idleTimeoutMs: fc.constantFrom(400, 400, Infinity),
    maxLifetimeMs: fc.constantFrom(1_000, Infinity),
    pingAfterIdleMs: fc.constantFrom(100, 0, Infinity),
    checkAlways: fc.boolean(),
    timings: fc.boolean(),
    limit: fc.constantFrom(Infinity, 1, 2, 4),
  })
  .filter(({ min, max, maxIdle }) => min <= maxIdle && maxIdle <= max)

const names = kinds.map(([kind]) => kind)
const always = ['acquire', 'opened', 'released', 'closed']

/** What can happen in one run: everything, or a little besides the usual, so that it comes in all orders. */
const possible = fc.oneof(
  fc.constant(names),
  fc.subarray(names, { maxLength: 6 }).map((some) => always.concat(some)),
)

test(`the core does what its model does, step by step (SEED=${seed})`, { timeout: 120_000 }, () => {
  let steps = 0
  const all = fc.array(command, { maxLength: 400, size: 'max' })
  const property = fc.property(options, possible, all, (settings, some, list) => {
    const run = new Run(settings)
    for (const { kind, index, ms } of list) {
      if (!some.includes(kind)) continue
      steps++
      commands[kind]?.[1](run, index, ms)
      run.settle()
    }
    run.finish()
  })
  fc.assert(property, { seed, numRuns: 1_200 })
  expect(steps).toBeGreaterThanOrEqual(100_000)
})
