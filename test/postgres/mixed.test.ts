import { expect, test } from 'vitest'
import { mixed } from '../mixed/mixed.ts'
import { createDatabase } from '../support/database.ts'

// npm run soak:postgres. From the environment:
//
//   MIXED_OPERATIONS  how many; 2,000 in a run of all tests
//   MIXED_SEED        random; printed
//   MIXED_CALLERS     24: how many are under way at a time
//   MIXED_FIGURES     set: prints how often what happened
const { env } = process
const seed = Number(env['MIXED_SEED'] ?? Date.now() % 1_000_000)
const operations = Number(env['MIXED_OPERATIONS'] ?? 2_000)
const callers = Number(env['MIXED_CALLERS'] ?? 24)

test(
  `${operations} mixed operations leave nothing behind (MIXED_SEED=${seed})`,
  async () => {
    await using db = await createDatabase()
    const startedAt = performance.now()
    const { violations, counts } = await mixed({ db, seed, operations, callers })
    if (env['MIXED_FIGURES']) {
      const sorted = Object.entries(counts).toSorted(([one], [two]) => one.localeCompare(two))
      console.log(`${operations} operations, ${Math.round(performance.now() - startedAt)} ms, MIXED_SEED=${seed}`)
      console.log(sorted.map(([what, count]) => `${count} ${what}`).join('\n'))
    }
    const told = violations.map(
      ({ rule, operation, what, detail, trace = [] }) =>
        `${rule}, operation ${operation}, ${what}: ${detail}\nof: ${trace.join('; ')}`,
    )
    expect(told).toEqual([])
  },
  60_000 + operations * 60,
)
