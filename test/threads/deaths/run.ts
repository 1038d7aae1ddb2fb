import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import postgres from 'postgres'
import type { TestDatabase } from '../../support/database.ts'
import { createDatabase, until } from '../../support/database.ts'
import type { TestRole } from '../../support/role.ts'
import { createRole } from '../../support/role.ts'
import { die, limit } from './scene.ts'
import { deaths } from './table.ts'
import type { Death, Kind, Phase } from './table.ts'

/** Phases in which the server is at work for the dead: it has to be told. */
const working: ReadonlySet<Phase> = new Set(['running', 'not to be cancelled', 'reaping'])
const [idleMs, workingMs] = [500, 1_500]
/** Nobody knows whether that session gets in: it is given a second to. */
const unsentMs = 2_500

/** How often each is died: DEATHS_ROUNDS=9 prints medians as well. */
const rounds = Number(process.env['DEATHS_ROUNDS'] ?? 1)
const isShort = process.env['DEATHS'] === 'short'

/** Declares the tests of the table's deaths of these kinds. */
export function testDeaths(isMeant: (kind: Kind) => boolean): void {
  let database: TestDatabase
  let role: TestRole
  const times = new Map<Phase, number[]>()

  beforeAll(async () => {
    database = await createDatabase()
    const there = postgres(database.url, { max: 1 })
    await there`create table canary (id int primary key, touched int)`
    await there`insert into canary select id, 0 from generate_series(0, ${limit}) as id`
    await there.end()
    role = await createRole(database, limit)
  })

  afterAll(async () => {
    await database.drop()
    if (rounds > 1) for (const [phase, all] of times) process.stdout.write(`${summary(phase, all)}\n`)
  })

  // One that leaves a session behind is not to fail those after it.
  afterEach(async () => {
    await database.admin`select pg_terminate_backend(pid) from pg_stat_activity where usename = ${role.name}`
    await until(async () => (await role.sessions()).length === 0, 'the end of all sessions')
  })

  const timed = async (death: Death): Promise<number> => {
    const ms = await die(role, death)
    times.set(death.phase, [...(times.get(death.phase) ?? []), ms])
    await until(async () => (await role.sessions()).length === 0, 'the end of all sessions')
    return ms
  }

  describe('a thread that dies leaves nothing but free permits', () => {
    test.each(deaths.filter(({ kind, short }) => isMeant(kind) && (short || !isShort)))(
      '$phase: $kind',
      { timeout: 15_000 * rounds },
      async (death) => {
        for (let round = 0; round < rounds; round++) {
          const ms = await timed(death)
          // A machine that stalls may do so once.
          const limitMs = death.phase === 'login unsent' ? unsentMs : working.has(death.phase) ? workingMs : idleMs
          expect(ms < limitMs ? ms : await timed(death)).toBeLessThan(limitMs)
        }
        expect(await touched(database)).toEqual([])
      },
    )
  })
}

/** What a transaction of the dead would have left, had it been committed; fails where one of them is still locked. */
async function touched(database: TestDatabase): Promise<readonly unknown[]> {
  const there = postgres(database.url, { max: 1 })
  try {
    return (await there`select * from canary for update nowait`).filter((row) => row['touched'] !== 0)
  } finally {
    await there.end()
  }
}

function summary(phase: string, all: number[]): string {
  const sorted = all.toSorted((a, b) => a - b)
  const at = (share: number): string => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1)
  return `${phase.padEnd(20)} n=${sorted.length}  median ${at(0.5)} ms  p95 ${at(0.95)} ms  max ${at(1)} ms`
}
