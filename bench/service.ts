import { fork } from 'node:child_process'
import { once } from 'node:events'
import { loadavg } from 'node:os'
import postgres from 'postgres'
import { setup } from './postgres/queries.ts'
import { ContenderProcess } from './service/contender-process.ts'
import type { Measured } from './service/contender.ts'
import { contenders } from './service/contenders.ts'
import type { Name } from './service/contenders.ts'
import type { Delays } from './service/main-loop.ts'
import { points } from './service/points.ts'
import type { Point } from './service/points.ts'
import { reportDelays, reportTasks } from './service/report.ts'
import type { Rounds, Seen } from './service/report.ts'
import { scenes } from './service/scenes.ts'
import type { Scene } from './service/scenes.ts'
import { Witness } from './service/witness.ts'
import { roundsFor } from './service/work.ts'
import { startServer } from './support/embedded.ts'
import { shuffled } from './support/rounds.ts'

const names = Object.keys(contenders) as Name[]
const sceneNames = Object.keys(scenes) as Scene[]
const defaultSeconds = 200
/** Their code is compiled only after some 10,000 tasks: these compute next to nothing. */
const warmUp = { rounds: 1_000, ms: 4_000 }
const steadyMs = 500
const sceneMs = 2_000
const sceneRounds = 3

interface Seat {
  readonly process: ContenderProcess
  readonly database: string
}

interface Plan {
  readonly points: readonly Point[]
  /** Rounds of the hash: a millisecond. */
  readonly hash: number
  readonly rounds: number
  /** How long one contender works in one round. */
  readonly ms: number
}

function plan(): Plan {
  const seconds = Number(process.env['MILLPOND_SECONDS'] ?? defaultSeconds)
  const picked = process.env['MILLPOND_POINTS']?.split(';').map((name) => name.trim())
  const chosen = points.filter(({ name }) => !picked || picked.some((part) => name.includes(part)))
  const rounds = seconds < defaultSeconds / 2 ? 3 : 9
  return {
    points: chosen,
    hash: roundsFor(1),
    rounds,
    ms: Math.max(200, (seconds * 1e3) / names.length / chosen.length / rounds),
  }
}

/** In every round of a point each contender has its turn, one at a time, in an order that is drawn anew. */
async function compare(seats: readonly Seat[], witness: Witness, todo: Plan): Promise<Map<Point, Rounds>> {
  const results = new Map<Point, Rounds>()
  for (const point of todo.points) {
    for (const { process: one } of seats) await one.measure({ ...warmUp, point })
  }
  for (const point of todo.points) {
    const order = { point, rounds: todo.hash * point.computeMs }
    const measured = new Map<Name, Measured[]>(names.map((name) => [name, []]))
    for (const { process: one } of shuffled(seats)) await one.measure({ ...order, ms: steadyMs })
    for (let round = 0; round < todo.rounds; round++) {
      for (const { process: one, database } of shuffled(seats)) {
        witness.watch(database)
        measured.get(one.name)?.push(await one.measure({ ...order, ms: todo.ms }))
        await witness.stop()
      }
    }
    results.set(point, measured)
  }
  return results
}

/** A database of its own for each contender, so that the server counts them apart. */
async function createDatabases(url: string): Promise<Map<Name, string>> {
  const admin = postgres(url, { max: 1 })
  const databases = new Map<Name, string>()
  for (const [i, name] of names.entries()) {
    const database = `bench_${i}`
    await admin.unsafe(`create database ${database}`)
    const sql = postgres(urlOf(url, database), { max: 1 })
    for (const statement of setup) await sql.unsafe(statement)
    await sql.end()
    databases.set(name, database)
  }
  await admin.end()
  return databases
}

function urlOf(url: string, database: string): string {
  const its = new URL(url)
  its.pathname = `/${database}`
  return its.href
}

async function compareTasks(url: string): Promise<void> {
  const databases = await createDatabases(url)
  const seats = [...databases].map(([name, database]) => ({
    process: new ContenderProcess(name, urlOf(url, database), process.env['MILLPOND_PROFILES']),
    database,
  }))
  const witness = new Witness(url)
  const todo = plan()
  console.log(`${todo.rounds} rounds of ${todo.ms.toFixed(0)} ms; 1 ms of computing is ${todo.hash} rounds of the hash`)
  const seen = new Map<Name, Seen>()
  try {
    const before = new Map<string, number>()
    for (const { database } of seats) before.set(database, await witness.logins(database))
    const results = await compare(seats, witness, todo)
    for (const { process: one, database } of seats) {
      const logins = (await witness.logins(database)) - (before.get(database) ?? 0)
      seen.set(one.name, { peak: witness.peak(database), logins })
    }
    console.log(reportTasks(results, seen))
  } finally {
    await Promise.all(seats.map(({ process: one }) => one.end()))
    await witness.end()
  }
}

async function measureScene(scene: Scene, url: string): Promise<Delays> {
  const child = fork(new URL('./service/main-loop.js', import.meta.url), [scene, url, String(sceneMs)])
  const exit = once(child, 'exit')
  const died = exit.then(() => {
    throw new Error(`The process in which ${scene} has ended.`)
  })
  const [delays] = (await Promise.race([once(child, 'message'), died])) as [Delays]
  if (child.connected) child.disconnect()
  await exit
  return delays
}

async function compareDelays(url: string): Promise<void> {
  const delays = new Map<Scene, Delays[]>(sceneNames.map((scene) => [scene, []]))
  for (let round = 0; round < sceneRounds; round++) {
    for (const scene of shuffled(sceneNames)) delays.get(scene)?.push(await measureScene(scene, url))
  }
  console.log(reportDelays(delays))
}

function tellLoad(): void {
  const load = loadavg().map((each) => each.toFixed(1))
  console.log(`load: ${load.join(', ')}`)
}

/** Runs the bench and prints its tables. */
export async function run(): Promise<void> {
  tellLoad()
  const server = await startServer()
  try {
    await compareTasks(server.url)
    tellLoad()
    await compareDelays(server.url)
    tellLoad()
  } finally {
    await server.stop()
  }
}
