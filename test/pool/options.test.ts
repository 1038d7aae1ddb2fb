import { describe, expect, test } from 'vitest'
import { resolveOptions } from '../../src/options.ts'
import { Pool } from '../../src/pool.ts'
import { FakeDriver } from '../../src/testing/index.ts'

function refusal(options: Record<string, unknown>): unknown {
  try {
    resolveOptions(options)
  } catch (error) {
    return error
  }
  return undefined
}

describe('Pool options', () => {
  test('Pool options have their documented defaults', () => {
    expect(resolveOptions({})).toMatchObject({
      name: expect.stringMatching(/^pool-\d+$/),
      min: 0,
      max: 10,
      maxIdle: 10,
      order: 'lifo',
      acquireTimeoutMs: 30_000,
      maxWaiting: Infinity,
      connectTimeoutMs: 10_000,
      idleTimeoutMs: 60_000,
      maxLifetimeMs: 1_800_000,
      pingAfterIdleMs: 1_000,
      reset: 'auto',
      resetTimeoutMs: 5_000,
      closeTimeoutMs: 10_000,
      limit: undefined,
      broker: undefined,
    })
  })

  test.each([
    ['TypeError', 'maxx', { maxx: 3 }, ['maxx', 'acquireTimeoutMs']],
    ['RangeError', 'min', { min: 3, max: 2 }, ['min 3', 'max 2']],
    ['RangeError', 'min', { min: -1 }, ['-1', 'from 0']],
    ['RangeError', 'max', { max: 0 }, ['got 0', 'from 1']],
    ['RangeError', 'max', { max: 2.5 }, ['2.5', 'whole number']],
    ['RangeError', 'max', { max: NaN }, ['NaN']],
    ['TypeError', 'max', { max: '10' }, ["'10'"]],
    ['RangeError', 'maxIdle', { min: 2, maxIdle: 1 }, ['min (2)', 'got 1']],
    ['RangeError', 'acquireTimeoutMs', { acquireTimeoutMs: 0 }, ['Infinity', 'tryAcquire']],
    ['RangeError', 'acquireTimeoutMs', { acquireTimeoutMs: -5 }, ['-5']],
    ['RangeError', 'connectTimeoutMs', { connectTimeoutMs: Infinity }, ['Infinity', 'milliseconds']],
    ['RangeError', 'idleTimeoutMs', { idleTimeoutMs: 2 ** 40 }, ['2147483647']],
    ['TypeError', 'order', { order: 'random' }, ["'lifo', 'fifo'", "'random'"]],
    ['TypeError', 'reset', { reset: true }, ["'auto', 'full', 'none'", 'true']],
    ['TypeError', 'name', { name: '' }, ['not empty']],
    ['RangeError', 'limit', { limit: 0 }, ['got 0']],
    ['TypeError', 'limit', { limit: {} }, ['connections']],
    ['TypeError', 'limit', { limit: { connections: 3, max: 3 } }, ['limit.max']],
    ['TypeError', 'broker', { broker: 'a', limit: 3 }, ['together']],
  ])('a %s with code ERR_OPTION names %s, its value and what is allowed: %j', (kind, option, options, said) => {
    const error = refusal(options)
    expect(error).toBeInstanceOf(kind === 'TypeError' ? TypeError : RangeError)
    expect(error).toMatchObject({ code: 'ERR_OPTION', option })
    for (const words of said) expect((error as Error).message).toContain(words)
  })

  test('new Pool() without a driver says so', () => {
    expect(() => new Pool({ driver: undefined as unknown as FakeDriver })).toThrow(
      expect.objectContaining({ code: 'ERR_OPTION', option: 'driver' }),
    )
  })

  test('Pool.acquire() rejects with ERR_OPTION for a timeout that cannot be', async () => {
    const pool = new Pool({ driver: new FakeDriver() })
    await expect(pool.acquire({ timeoutMs: -1 })).rejects.toMatchObject({ code: 'ERR_OPTION', option: 'timeoutMs' })
    await expect(pool.acquire({ timeoutMs: NaN })).rejects.toMatchObject({ code: 'ERR_OPTION' })
    await pool.close()
  })
})
