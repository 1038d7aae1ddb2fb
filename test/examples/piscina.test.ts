import { readFileSync } from 'node:fs'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Counting } from '../threads/counting.ts'
import { Example } from './example.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** Runs one of the two programs to its end: what it prints, and how many connections the server has counted. */
async function run(program: 'before' | 'after'): Promise<{ stdout: string; peak: number }> {
  await using counting = new Counting(database.admin, database.name)
  const example = new Example(`piscina/${program}/main.js`, { env: { DATABASE_URL: database.url } })
  const code = await example.end()
  expect({ code, stderr: example.stderr }).toEqual({ code: 0, stderr: '' })
  await database.sessionsToBe(0)
  const { peak } = await counting.stop()
  return { stdout: example.stdout, peak }
}

async function expected(): Promise<string> {
  const sql = postgres(database.url, { max: 1 })
  try {
    const [row] = await sql`
      with medians as (
        select customer, percentile_disc(0.5) within group (order by cents) as cents
        from example_sales group by customer, month)
      select count(distinct customer) || ' reports, ' || sum(cents) || ' cents' as line from medians`
    return `${row?.['line']}\n`
  } finally {
    await sql.end()
  }
}

test('piscina, before: every worker opens what it likes', async () => {
  const { stdout, peak } = await run('before')
  expect(stdout).toBe(await expected())
  expect(peak).toBeGreaterThan(10)
})

test('piscina, after: the same result, and no more connections than the limit', async () => {
  const { stdout, peak } = await run('after')
  expect(stdout).toBe(await expected())
  expect(peak).toBeLessThanOrEqual(10)
  expect(peak).toBeGreaterThan(4)
})

const folder = new URL('../../docs/examples/', import.meta.url)
const read = (path: string): string => readFileSync(new URL(path, folder), 'utf8')
const diffs = [...read('README.md').matchAll(/^```diff\n([\s\S]*?)^```/gm)].map(([, diff = '']) => diff)

describe('docs/examples/README.md shows what has changed', () => {
  test.each(['main.js', 'worker.js'])('in %s', (file) => {
    const diff = diffs.find((one) => one.startsWith(` // ${file}\n`))?.split('\n') ?? []
    const marked = (mark: string): string[] =>
      diff.filter((line) => line.startsWith(mark) && line !== mark).map((line) => line.slice(1))
    const lines = (program: string): string[] => read(`piscina/${program}/${file}`).split('\n')
    const [removed, added] = [marked('-'), marked('+')]
    expect(removed.length).toBeGreaterThan(0)
    expect(lines('before').filter((line) => line !== '' && !lines('after').includes(line))).toEqual(removed)
    expect(lines('after').filter((line) => line !== '' && !lines('before').includes(line))).toEqual(added)
    for (const line of marked(' ').slice(1)) expect(lines('after')).toContain(line)
  })
})
