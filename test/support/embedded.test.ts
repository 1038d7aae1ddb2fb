import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'

test('a process that has started a server ends with the code that it has set: a red run of tests is not green', () => {
  const embedded = new URL('../../dist/bench/support/embedded.js', import.meta.url).href
  const program = `await import('${embedded}'); process.exitCode = 3`
  expect(spawnSync(process.execPath, ['--input-type=module', '-e', program]).status).toBe(3)
})
