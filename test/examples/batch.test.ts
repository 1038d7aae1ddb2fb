import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Counting } from '../threads/counting.ts'
import { Example } from './example.ts'

// BATCH_ROWS=1000000 for the whole of it, with as much to compute as it has for its reader.
const rows = Number(process.env['BATCH_ROWS'] ?? 240_000)
const rounds = process.env['BATCH_ROWS'] === undefined ? 2 : 20
const workers = 4

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

interface Ran {
  readonly example: Example
  /** Bytes in use in the heaps of all threads, at the least in the later half of the run. */
  readonly heap: number
  readonly peak: number
}

/** Runs the batch to its end. */
async function run(count: number): Promise<Ran> {
  const folder = mkdtempSync(join(tmpdir(), 'millpond-heap-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  await using counting = new Counting(database.admin, database.name)
  const example = new Example('batch/main.js', {
    args: ['--rows', String(count), '--workers', String(workers)],
    env: { DATABASE_URL: database.url, HEAP_FOLDER: folder, ROUNDS: String(rounds) },
    nodeArgs: ['--expose-gc', '--import', fileURLToPath(new URL('heap.mjs', import.meta.url))],
  })
  const code = await example.end()
  expect(code, example.stderr).toBe(0)
  await database.sessionsToBe(0)
  const { peak } = await counting.stop()
  const heaps = readdirSync(folder).map((name) => leastLater(readFileSync(join(folder, name), 'utf8')))
  expect(heaps.length).toBe(1 + workers)
  return { example, heap: heaps.reduce((sum, bytes) => sum + bytes, 0), peak }
}

/** What is on its way comes and goes; what is kept is there at the least, too. */
function leastLater(text: string): number {
  const samples = text.trimEnd().split('\n').map(Number)
  return Math.min(...samples.slice(samples.length >> 1))
}

/** What was written, next to what the server computes itself. */
async function written(): Promise<unknown> {
  const sql = postgres(database.url, { max: 1 })
  const token = Array.from({ length: rounds }).reduce<string>(
    (inner) => `sha256(${inner})`,
    `convert_to(email, 'UTF8')`,
  )
  try {
    const [row] = await sql.unsafe(`
      select count(*)::int as people, count(distinct id)::int as tokens,
        count(*) filter (where token = encode(${token}, 'hex'))::int as right
      from example_people full join example_tokens using (id)`)
    return row
  } finally {
    await sql.end()
  }
}

test(
  'batch: every row once, with progress, within the limit, in memory that does not depend on their number',
  { timeout: 60_000 + rows / 2 },
  async () => {
    const few = await run(rows / 4)
    const many = await run(rows)
    for (const [count, { example, peak }] of [
      [rows / 4, few],
      [rows, many],
    ] as const) {
      expect(example.stdout).toContain(`${count} rows with ${workers} workers in `)
      expect(example.stdout).toMatch(/^peak: \d+ MiB of heap in this thread, \d+ MiB in all/m)
      const parts = [...example.stderr.matchAll(/^[█░]{30} (\d+) % {2}\d+ of \d+ rows/gm)].map(([, part]) =>
        Number(part),
      )
      expect(parts.length).toBeGreaterThanOrEqual(8)
      expect(parts).toEqual(parts.toSorted((a, b) => a - b))
      expect(parts.at(-1)).toBe(100)
      expect(peak).toBeLessThanOrEqual(workers + 1)
      expect(peak).toBeGreaterThan(2)
    }
    expect(await written()).toEqual({ people: rows, tokens: rows, right: rows })
    // Of what is kept of each row, a hundred bytes at the least, half is there in the middle of the run.
    expect(many.heap - few.heap).toBeLessThan((rows - rows / 4) * 40)
  },
)
