import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { systemClock } from '../../src/clock.ts'

test('systemClock.coarse() is read anew after the event loop has slept, whatever wakes it up', async () => {
  // In a process of its own: a test runner's loop has always something to do.
  const script = fileURLToPath(new URL('fixtures/sleeping-loop.mjs', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [script])
  expect(Number(stdout)).toBeLessThan(100)
})

test('systemClock.coarse() stands still within one turn', () => {
  const first = systemClock.coarse?.()
  const until = systemClock.now() + 5
  while (systemClock.now() < until);
  expect(systemClock.coarse?.()).toBe(first)
})
