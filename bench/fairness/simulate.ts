import { Members } from './members.ts'
import type { Scenario, Setting } from './scenarios.ts'
import { OneQueue } from './server.ts'
import { Tally, jain, quantile } from './tally.ts'
import { VirtualTime } from './virtual-time.ts'

export interface Run {
  readonly scenario: Scenario
  readonly setting: Setting
  readonly seed: number
  readonly warmUpMs?: number
  readonly measuredMs?: number
}

export interface Outcome {
  /** Of the queries that one queue would have done in the same time. */
  readonly share: number
  /** Permits handed from one member to another, each second. */
  readonly moves: number
  /** Connections opened, each second: moves, and what was freed and taken again. */
  readonly opens: number
  /** Of those that should get the same; undefined if there are none. */
  readonly jain: number | undefined
  /** Of those whose waits are looked at, in ms. */
  readonly longest: number
  readonly p99: number
}

/** Runs a scenario under the broker's rules, and under one queue with the same queries. */
export function simulate(run: Run): Outcome {
  const { scenario } = run
  const tally = tallyOf(run)
  const { seconds } = tally
  const moved = underBroker(run, tally)
  const ideal = underOneQueue(run)
  const watched = scenario.watched ?? scenario.loads.map((_, i) => i)
  return {
    share: sum(tally.done) / sum(ideal.done),
    moves: moved.moves / seconds,
    opens: moved.opens / seconds,
    jain: scenario.equals && jain(scenario.equals.map((i) => tally.done[i]!)),
    longest: Math.max(...watched.map((i) => tally.longest(i))),
    p99: quantile(
      watched.flatMap((i) => tally.waits[i]!),
      0.99,
    ),
  }
}

function tallyOf({ scenario, warmUpMs = 2_000, measuredMs = 20_000 }: Run): Tally {
  return new Tally(scenario.loads.length, warmUpMs, warmUpMs + measuredMs)
}

function underBroker({ scenario, setting, seed }: Run, tally: Tally): { moves: number; opens: number } {
  const { limit, loads } = scenario
  const time = new VirtualTime()
  const server = new Members({ members: loads.length, limit, connectMs: setting.connectMs, time })
  for (const [member, load] of loads.entries())
    load({ server, time, tally, seed, serviceMs: setting.serviceMs }, member)
  const listen = (): void => server.listen()
  time.run(tally.from, listen)
  const { moves, opens } = server
  time.run(tally.to, listen)
  return { moves: server.moves - moves, opens: server.opens - opens }
}

function underOneQueue(run: Run): Tally {
  const { scenario, setting, seed } = run
  const time = new VirtualTime()
  const server = new OneQueue(scenario.limit)
  const tally = tallyOf(run)
  for (const [member, load] of scenario.loads.entries()) {
    load({ server, time, tally, seed, serviceMs: setting.serviceMs }, member)
  }
  time.run(tally.to, () => {})
  return tally
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0)
}
