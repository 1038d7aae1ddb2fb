import { fork } from 'node:child_process'
import { once } from 'node:events'
import { loadavg } from 'node:os'
import postgres from 'postgres'
import { ContenderProcess } from './postgres/contender-process.ts'
import { contenders } from './postgres/contenders.ts'
import type { Name } from './postgres/contenders.ts'
import { nameOf, points } from './postgres/points.ts'
import type { Cost, Point } from './postgres/points.ts'
import { setup } from './postgres/queries.ts'
import { report } from './postgres/report.ts'
import type { Measured } from './postgres/report.ts'
import { startServer } from './support/embedded.ts'
import { shuffled } from './support/rounds.ts'

const defaultSeconds = 400
const warmUpMs = 1_500
const roads = 2
const names = Object.keys(contenders) as Name[]

interface Plan {
  readonly points: readonly Point[]
  readonly rounds: number
  /** How long one contender works in one round. */
  readonly ms: number
  readonly profiles: string | undefined
}

function plan(): Plan {
  const picked = process.env['MILLPOND_POINTS']?.split(';').map((name) => name.trim())
  const seconds = Number(process.env['MILLPOND_SECONDS'] ?? defaultSeconds)
  const profiles = process.env['MILLPOND_PROFILES']
  const chosen = points.filter((point) => !picked || picked.some((part) => nameOf(point).startsWith(part)))
  const rounds = seconds < defaultSeconds / 2 ? 3 : 9
  const ms = (seconds * 1e3) / roads / names.length - warmUpMs
  return { points: chosen, rounds, ms: Math.max(10, ms / chosen.length / rounds), profiles }
}

/** In every round of a point each contender has its turn, one at a time, in an order that is drawn anew. */
async function compare(url: string, { points: chosen, rounds, ms, profiles }: Plan): Promise<Map<Point, Measured>> {
  const processes = names.map((name) => new ContenderProcess(name, url, profiles))
  const results = new Map<Point, Measured>()
  try {
    for (const contender of processes) await contender.warmUp(warmUpMs)
    for (const point of chosen) {
      const measured = new Map<Name, Cost[]>(names.map((name) => [name, []]))
      for (let round = 0; round < rounds; round++) {
        for (const contender of shuffled(processes)) {
          const cost = await contender.measure(point, ms)
          if (cost) measured.get(contender.name)?.push(cost)
        }
      }
      results.set(point, measured)
    }
  } finally {
    await Promise.all(processes.map((contender) => contender.end()))
  }
  return results
}

/** The median time from asking to the answer, for one that asks alone, in ms. */
async function roundTripMs(url: string): Promise<number> {
  const sql = postgres(url, { max: 1 })
  const times: number[] = []
  for (let i = 0; i < 200; i++) {
    const startedAt = performance.now()
    await sql`select 1`
    times.push(performance.now() - startedAt)
  }
  await sql.end()
  return times.toSorted((a, b) => a - b)[100] ?? Number.NaN
}

async function fill(url: string): Promise<void> {
  const sql = postgres(url, { max: 1 })
  for (const statement of setup) await sql.unsafe(statement)
  await sql.end()
}

/** Runs the bench and prints its tables. */
export async function run(): Promise<void> {
  const server = await startServer()
  const road = fork(new URL('./postgres/slow-road.js', import.meta.url), [String(server.port), '1'])
  try {
    const [port] = (await once(road, 'message')) as [number]
    const far = new URL(server.url)
    far.port = String(port)
    await fill(server.url)
    const todo = plan()
    for (const [says, url] of [
      ['directly', server.url],
      ['over a road that takes 1 ms longer', far.href],
    ] as const) {
      const tripMs = await roundTripMs(url)
      console.log(
        `\n${says}: a round trip of ${tripMs.toFixed(2)} ms; ${todo.rounds} rounds of ${todo.ms.toFixed(0)} ms`,
      )
      console.log(report(await compare(url, todo)))
      const load = loadavg().map((each) => each.toFixed(1))
      console.log(`load: ${load.join(', ')}`)
    }
  } finally {
    road.disconnect()
    await server.stop()
  }
}
