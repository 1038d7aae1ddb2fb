import { expect, test } from 'vitest'
import { FakeDriver, settled } from '../../src/testing/index.ts'
import type { Behaviour } from '../../src/testing/index.ts'
import { after, randomFrom } from './cases/support.ts'
import { rig, watch, watchRejections } from './support.ts'

// Whatever the driver and the hooks make of a call, a pool keeps to its size, answers everybody once, and ends.

const ways = ['ok', 'error', 'slow', 'never'] as const
type Way = (typeof ways)[number]
type Ways = readonly [open: Way, onOpen: Way, out: Way, back: Way, close: Way]

const seed = Number(process.env['SEED'] ?? Math.trunc(Math.random() * 2 ** 31))
const max = 3

const all: Ways[] = ways.flatMap((open) =>
  ways.flatMap((onOpen) =>
    ways.flatMap((out) => ways.flatMap((back) => ways.map((close): Ways => [open, onOpen, out, back, close]))),
  ),
)

/** Eight tasks that acquire, give up, release and destroy at random; then the pool closes. */
async function run([open, onOpen, out, back, close]: Ways, asksHooks: boolean, random: () => number): Promise<void> {
  const where = `${[open, onOpen, out, back, close].join(', ')}${asksHooks ? ' (hooks)' : ''}, SEED=${seed}`
  const driver = new FakeDriver()
  const act = (way: Way) => async (): Promise<void> => {
    if (way === 'error') throw new Error('as planned')
    if (way === 'slow') await after(clock, 1 + random() * 40)
    if (way === 'never') await new Promise<never>(() => {})
  }
  const { pool, clock } = rig(
    {
      max,
      acquireTimeoutMs: 100,
      connectTimeoutMs: 30,
      resetTimeoutMs: 30,
      closeTimeoutMs: 100,
      pingAfterIdleMs: 0,
      onOpen: act(onOpen),
      ...(asksHooks ? { onAcquire: act(out), onRelease: act(back) } : {}),
    },
    driver,
  )
  const behaviour = (way: Way): Behaviour => act(way)
  driver.behaviour.open = behaviour(open)
  driver.behaviour.close = behaviour(close)
  if (!asksHooks) Object.assign(driver.behaviour, { ping: behaviour(out), reset: behaviour(back) })

  let acquires = 0
  const answers: string[] = []
  const task = async (): Promise<void> => {
    for (let round = 0; round < 3; round++) {
      await after(clock, random() * 20)
      const leaving = new AbortController()
      const kind = random()
      if (kind < 0.4) clock.setTimer(() => leaving.abort(), random() * 60)
      acquires++
      try {
        const timeoutMs = kind < 0.1 ? 0 : 1 + random() * 120
        const one = await pool.acquire({ signal: leaving.signal, timeoutMs })
        answers.push('served')
        one.connection.dirty = random() < 0.7
        if (random() < 0.5) await after(clock, random() * 10)
        const given = random() < 0.2 ? one.destroy() : one.release()
        if (random() < 0.5) await given
      } catch {
        answers.push('refused')
      }
    }
  }
  const tasks = watch(Promise.all(Array.from({ length: 8 }, task)))
  const sample = (): void => {
    const stats = pool.stats()
    expect(stats.open + stats.opening + stats.closing, where).toBeLessThanOrEqual(max)
    expect(stats.idle, where).toBeLessThanOrEqual(max)
    expect(driver.peak, where).toBeLessThanOrEqual(max)
  }
  for (let i = 0; i < 20; i++) {
    await clock.advance(10)
    sample()
  }
  await clock.advance(2_000)
  sample()
  expect([tasks.state, answers.length], where).toEqual(['resolved', acquires])
  const stats = pool.stats()
  expect([stats.waiting, stats.leased], where).toEqual([0, 0])
  const served = answers.filter((answer) => answer === 'served').length
  expect(stats.acquires, where).toBeGreaterThanOrEqual(served)
  const closed = watch(pool.close())
  await clock.advance(10_000)
  sample()
  expect(closed.value, where).toEqual({ revoked: 0 })
  await clock.advance(20_000)
  expect(clock.timers.all, where).toBe(0)
}

test.each([
  ['ping and reset', false],
  ['onAcquire and onRelease', true],
])(
  `a pool keeps to its size and answers everybody, whatever open, onOpen, %s and close do (SEED=${seed})`,
  { timeout: 60_000 },
  async (_, asksHooks) => {
    const rejections = watchRejections()
    const random = randomFrom(seed)
    for (const combination of all) await run(combination, asksHooks, random)
    await settled()
    expect(rejections).toEqual([])
  },
)
