import { expect, test } from 'vitest'
import { commands } from './model/commands.ts'
import type { Asker } from './model/model.ts'
import { Run } from './model/run.ts'
import type { RunOptions } from './model/run.ts'

// Where the core's ways part seldom, by hand, so that whether they are taken is no matter of chance.

type Step = string | readonly [name: string, index: number, ms?: number]

/** Does one command after the other to a core and its model, which have to agree. */
function play(steps: readonly Step[], options: Partial<RunOptions> = {}): Run {
  const run = new Run({
    name: 'p',
    min: 0,
    max: 2,
    maxIdle: 2,
    order: 'lifo',
    maxWaiting: Infinity,
    maxUses: Infinity,
    idleTimeoutMs: 400,
    maxLifetimeMs: 1_000,
    pingAfterIdleMs: 100,
    checkAlways: false,
    timings: false,
    limit: Infinity,
    ...options,
  })
  for (const step of steps) {
    const [name, index = 0, ms = 0] = typeof step === 'string' ? [step] : step
    const command = commands[name]
    if (!command) throw new Error(`there is no command "${name}"`)
    command[1](run, index, ms)
    run.settle()
  }
  return run
}

const oneIdle = ['acquire', 'opened', 'released'] as const
const twoIdle = ['acquire', 'acquire', 'opened', 'opened', 'released', 'released'] as const

test('an acquire does not get an idle connection whose lifetime is over, however few look at it', () => {
  const { core } = play([...oneIdle, ['time passes', 0, 1_000], 'acquire'])
  expect(core.stats()).toMatchObject({ idle: 0, closing: 1, waiting: 1, opening: 1, closes: { lifetime: 1 } })
})

test('a sweep closes an idle connection whose lifetime is over', () => {
  const { core } = play([...oneIdle, ['time passes', 0, 1_000], 'sweep'])
  expect(core.stats().closes).toMatchObject({ lifetime: 1, idle: 0 })
})

test('a sweep gives up what nobody needed for the whole idle timeout, down to min', () => {
  const { core } = play([...twoIdle, ['nothing happens for a while', 7]], { min: 1 })
  expect(core.stats()).toMatchObject({ idle: 1, closes: { idle: 1 } })
})

test.each([
  [1, 2],
  [4, 2],
  [5, 0],
])('a late sweep gives up nothing; %i quarters later %i are left of two', (quarters, left) => {
  const late = ['nothing happens for a while', quarters, 1_000] as const
  expect(play([...twoIdle, ['nothing happens for a while', 3], late]).core.idle).toBe(left)
})

test('a connection that others want is closed instead of lent again', () => {
  const { core } = play(['acquire', 'acquire', 'opened', 'others want', 'acquire', 'released'])
  expect(core.stats().closes.reclaimed).toBe(1)
})

test('what is taken away for others is the one that has idled longest; with none idle, nothing', () => {
  const { core } = play(['retire idle', ...twoIdle, 'retire idle'])
  expect(core.stats()).toMatchObject({ idle: 1, closes: { reclaimed: 1 } })
})

test('idle connections are given up down to min; with none idle, nothing', () => {
  const { core } = play(['acquire', 'opened', 'release idle', 'released', 'release idle'])
  expect(core.stats()).toMatchObject({ idle: 0, closes: { idle: 1 } })
})

test('an acquire that was answered is neither aborted nor late afterwards', () => {
  const { core } = play([...oneIdle, ['abort', 0], ['time out', 0]])
  expect(core.stats()).toMatchObject({ acquires: 1, aborted: 0, timeouts: 0 })
})

test('what comes too late for a connection that is closing, gone or idle changes nothing', () => {
  const late = ['something comes too late', 0] as const
  play(['acquire', late, 'opened', late, 'released', late, 'retire idle', late, 'closed', late])
})

test('a close that is doubted twice is reaped once', () => {
  const { core } = play([...oneIdle, 'retire idle', 'closed in doubt', 'closed in doubt'])
  expect(core.doubtful).toBe(1)
  expect(play([...oneIdle, 'retire idle', 'closed in doubt', 'closed']).core.doubtful).toBe(0)
})

test('a connection that is lost while it is being pinged leaves its waiter to the next one', () => {
  const { core } = play([...oneIdle, ['time passes', 0, 101], 'acquire', ['lost', 0]])
  expect(core.stats()).toMatchObject({ waiting: 1, closing: 1, opening: 1, closes: { broken: 1 } })
})

test('a connection that is lost while it is pinged for somebody who has left is nobody’s loss', () => {
  const { core } = play([...oneIdle, ['time passes', 0, 101], 'acquire', 'abort', ['lost', 0]])
  expect(core.stats()).toMatchObject({ waiting: 0, closing: 1, opening: 0 })
})

test('closing refuses who waits for a ping, unless that one has left already, and closing again does nothing', () => {
  const pinged = [...oneIdle, ['time passes', 0, 101], 'acquire'] as const
  expect(play([...pinged, ['close', 15]]).core.stats()).toMatchObject({ refused: 1, aborted: 0 })
  expect(play([...pinged, 'abort', ['close', 15], ['close', 15]]).core.stats()).toMatchObject({
    refused: 0,
    aborted: 1,
  })
})

test.each<[string, number, Partial<RunOptions>]>([
  ['connect', 2, {}],
  ['queue', 3, {}],
  ['permit', 2, { limit: 1 }],
])('what is lacking is %s for the last of %i acquires with %j', (phase, asks, options) => {
  const { core, asked } = play(
    Array.from({ length: asks }, () => 'acquire'),
    options,
  )
  expect(core.phaseOf((asked.at(-1) as Asker).waiter)).toBe(phase)
})

test('who waits for a ping when the permits are refused is refused as well, and does not wait on', () => {
  const { core, asked } = play([...oneIdle, ['time passes', 0, 101], 'acquire', ['refuse', 15], 'check passed'])
  expect([core.waiting, asked.at(-1)?.waiter.state]).toEqual([0, 'refused'])
})

const own = 'acquire for the pool itself'

test('nothing is opened for the pool itself, also when the connection it was given turned out dead', () => {
  const { core } = play([...oneIdle, ['time passes', 0, 101], own, 'ping failed', 'closed'])
  expect([core.waiting, core.opening]).toEqual([1, 0])
})

test('the pool itself goes before everybody again when the connection it was given was of no use', () => {
  const taken = ['acquire', 'opened', 'check passed'] as const
  const steps = [...taken, 'acquire', own, 'released', 'check refused', 'closed', 'opened', 'check passed'] as const
  const { asked } = play(steps, { max: 1, checkAlways: true })
  expect(asked.map(({ waiter }) => waiter.state)).toEqual(['served', 'waiting', 'served'])
})
