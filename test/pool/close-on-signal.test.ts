import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { closeOnSignal } from '../../src/close-on-signal.ts'

async function signalled(...args: string[]): Promise<{ output: string; code: unknown }> {
  const script = fileURLToPath(new URL('./fixtures/on-signal.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const exited = once(child, 'exit')
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  await expect.poll(() => output, { timeout: 10_000 }).toContain('ready')
  child.kill('SIGTERM')
  const [code] = (await exited) as [number | null]
  return { output, code }
}

test('closeOnSignal() runs `before`, closes the pool, and ends the process with 0', async () => {
  expect(await signalled()).toEqual({ output: 'ready\nbefore\nconnection closed\n', code: 0 })
})

test('closeOnSignal() ends the process with 1 if closing fails', async () => {
  expect((await signalled('failing')).code).toBe(1)
})

test('closeOnSignal() returns what takes its listeners away again', () => {
  const before = process.listenerCount('SIGUSR2')
  const forget = closeOnSignal({ close: async () => {} }, { signals: ['SIGUSR2'] })
  expect(process.listenerCount('SIGUSR2')).toBe(before + 1)
  forget()
  expect(process.listenerCount('SIGUSR2')).toBe(before)
})
