import postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { canSharePort } from '../../src/service/listen-share.ts'
import { ask, load } from '../service/fixtures/load.mjs'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Counting } from '../threads/counting.ts'
import { Example } from './example.ts'

const shares = canSharePort()
const limit = 8

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

test(
  'http: two threads answer where they can share a port, within the limit, until SIGTERM',
  { timeout: 60_000 },
  async () => {
    const counting = new Counting(database.admin, database.name)
    onTestFinished(() => counting[Symbol.asyncDispose]())
    const example = new Example('http/main.js', { env: { DATABASE_URL: database.url, PORT: '0' } })
    await expect
      .poll(() => example.stdout + example.stderr, { timeout: 20_000 })
      .toMatch(/^http:\/\/127\.0\.0\.1:\d+$/m)
    const port = Number(/:(\d+)\n/.exec(example.stdout)?.[1])
    const get = async (path: string): Promise<Record<string, number>> => {
      const [outcome, body] = await ask(undefined, port, path)
      expect([outcome, body]).toEqual(['answered', expect.any(String)])
      return JSON.parse(body) as Record<string, number>
    }

    const sql = postgres(database.url, { max: 1 })
    const [sum] = await sql<[{ orders: number; cents: number; mean: number }]>`
    select count(*)::int as orders, sum(cents)::int as cents, avg(cents)::float8 as mean
    from example_orders where customer = 7`
    await sql.end()
    const threads = new Set<unknown>()
    for (let i = 0; i < 300 && threads.size < 2; i++) {
      const answer = await get('/orders/7')
      expect(answer).toEqual({ orders: sum.orders, cents: sum.cents, thread: expect.any(Number) })
      threads.add(answer['thread'])
    }
    expect(threads.size).toBe(shares ? 2 : 1)
    const warning = expect.stringContaining('one of them listens, the others stand by') as string
    expect(example.stderr).toEqual(shares ? '' : warning)

    const { mean = 0, from = 0, to = 0, thread } = await get('/estimate/7')
    expect(mean).toBeCloseTo(sum.mean, 5)
    expect(from).toBeGreaterThan(0.8 * mean)
    expect(from).toBeLessThan(mean)
    expect(to).toBeGreaterThan(mean)
    expect(to).toBeLessThan(1.2 * mean)
    expect(threads).not.toContain(thread)

    expect(await get('/healthz')).toEqual({ live: true })
    expect(await get('/readyz')).toEqual({ ready: true })
    expect((await ask(undefined, port, '/estimate/101'))[0]).toBe('wrong')

    const clients = load(port, ['/orders/1', '/estimate/1', '/orders/2', '/orders/3'], 32)
    await expect.poll(() => clients.counts.answered, { timeout: 20_000 }).toBeGreaterThan(200)
    example.child.kill('SIGTERM')
    expect(await example.end(), example.stderr).toBe(0)
    const { reset, cut, wrong } = await clients.stop()
    expect({ reset, cut, wrong }).toEqual({ reset: 0, cut: 0, wrong: 0 })
    await database.sessionsToBe(0)
    const { peak } = await counting.stop()
    expect(peak).toBeLessThanOrEqual(limit)
    expect(peak).toBeGreaterThan(2)
  },
)
