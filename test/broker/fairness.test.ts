import { describe, expect, test } from 'vitest'
import { scenarios, settings } from '../../bench/fairness/scenarios.ts'
import { simulate } from '../../bench/fairness/simulate.ts'
import type { Outcome } from '../../bench/fairness/simulate.ts'

// A part of `npm run bench -- fairness`, with room to spare: whatever breaks fairness, or has permits move for nothing,
// is far outside. The numbers of a run are its seed's; MILLPOND_SEED repeats it.
const seed = Number(process.env['MILLPOND_SEED'] ?? Math.trunc(Math.random() * 2 ** 31))

interface Bounds {
  readonly scenario: string
  readonly setting: string
  readonly seconds: number
  readonly least?: Partial<Pick<Outcome, 'share' | 'jain'>>
  readonly most?: Partial<Pick<Outcome, 'opens' | 'longest' | 'p99'>>
}

const all: readonly Bounds[] = [
  // Enough for all: nothing moves.
  { scenario: 'A8', setting: 'S20 C5', seconds: 10, least: { share: 0.985, jain: 0.98 }, most: { opens: 3 } },
  // Who asks rarely is served soon, and costs one connection each time.
  { scenario: 'B', setting: 'S1 C5', seconds: 4, least: { share: 0.96 }, most: { opens: 5, longest: 30 } },
  { scenario: 'B', setting: 'S20 C5', seconds: 20, least: { share: 0.96 }, most: { opens: 4, longest: 90 } },
  // Light members keep one connection each beside a heavy one.
  { scenario: 'C', setting: 'S1 C5', seconds: 2, least: { share: 0.68 }, most: { opens: 30, p99: 25 } },
  { scenario: 'C', setting: 'S20 C20', seconds: 10, least: { share: 0.94 }, most: { opens: 16 } },
  // More members than permits: they take turns, none of them is left out, and moving costs a tenth.
  { scenario: 'D', setting: 'S20 C20', seconds: 20, least: { share: 0.87, jain: 0.97 }, most: { longest: 2_200 } },
  {
    scenario: '3 for 12',
    setting: 'S20 C20',
    seconds: 20,
    least: { share: 0.87, jain: 0.97 },
    most: { longest: 2_000 },
  },
  // A burst soon has the connections that idle elsewhere.
  { scenario: 'E', setting: 'S1 C20', seconds: 10, least: { share: 0.98 }, most: { opens: 20, longest: 75 } },
  // Uneven loads are served as if there were one queue.
  { scenario: 'G', setting: 'S20 C20', seconds: 10, least: { share: 0.95 }, most: { opens: 40 } },
  // Nobody's last connection goes to and fro.
  { scenario: 'uneven', setting: 'S20 C5', seconds: 5, least: { share: 0.93, jain: 0.95 }, most: { opens: 5 } },
  // What cannot be shared evenly goes round.
  { scenario: '5 for 4', setting: 'S1 C5', seconds: 5, least: { share: 0.97, jain: 0.95 }, most: { opens: 10 } },
]

describe(`the rules in simulated time (seed ${seed})`, () => {
  for (const { scenario: name, setting: times, seconds, least = {}, most = {} } of all) {
    test(`${name} at ${times}`, () => {
      const scenario = scenarios.find((one) => one.name === name)!
      const setting = settings.find((one) => one.name === times)!
      const outcome = simulate({ scenario, setting, seed, warmUpMs: 1_000, measuredMs: seconds * 1_000 })
      for (const what of ['share', 'jain'] as const) {
        expect(outcome[what] ?? 1, what).toBeGreaterThanOrEqual(least[what] ?? 0)
      }
      for (const what of ['opens', 'longest', 'p99'] as const) {
        expect(outcome[what], what).toBeLessThanOrEqual(most[what] ?? Infinity)
      }
    })
  }
})
