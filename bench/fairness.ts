import { report } from './fairness/report.ts'
import { scenarios, settings } from './fairness/scenarios.ts'
import type { Scenario } from './fairness/scenarios.ts'
import { simulate } from './fairness/simulate.ts'
import type { Outcome } from './fairness/simulate.ts'

/** Runs the bench and prints its table. `MILLPOND_SEED` repeats a run, `MILLPOND_SCENARIO` picks some scenarios. */
export function run(): Promise<void> {
  const seed = Number(process.env['MILLPOND_SEED'] ?? Math.trunc(Math.random() * 2 ** 31))
  const picked = process.env['MILLPOND_SCENARIO']?.split(',')
  console.log(`seed ${seed}; each cell: ${settings.map(({ name }) => name).join(', ')}`)
  const outcomes = new Map<Scenario, Outcome[]>()
  for (const scenario of scenarios) {
    if (picked && !picked.includes(scenario.name)) continue
    console.log(`${scenario.name.padEnd(10)} ${scenario.says}`)
    outcomes.set(
      scenario,
      settings.map((setting) => simulate({ scenario, setting, seed })),
    )
  }
  console.log(report(outcomes))
  return Promise.resolve()
}
