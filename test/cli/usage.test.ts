import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { failure, millpond } from './command.ts'

test('millpond --help names the commands, and what they are for', async () => {
  const { code, stdout, stderr } = await millpond(['--help'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toContain('Usage: millpond [options] [command]')
  expect(stdout).toMatch(/^ +run \[options\] <module> +\w+/m)
  expect(stdout).toMatch(/^ +doctor \[options\] \[url\] +\w+/m)
  expect(stdout).toContain('DATABASE_URL')
})

test('millpond run --help says what a module may export, and the exit codes', async () => {
  const { code, stdout } = await millpond(['run', '--help'])
  expect(code).toBe(0)
  for (const option of ['--limit <n>', '--workers <n>', '--database <url>']) expect(stdout).toContain(option)
  for (const shape of ['options', 'a function', 'a service']) expect(stdout).toMatch(new RegExp(`^ +${shape} `, 'm'))
  expect(stdout).toMatch(/^Exit codes: 0 .*, 1 .*, 2 /m)
})

test('millpond doctor --help says what it looks at, and the exit codes', async () => {
  const { code, stdout } = await millpond(['doctor', '-h'])
  expect(code).toBe(0)
  for (const option of ['--limit <n>', '--json', '--timeout-ms <ms>']) expect(stdout).toContain(option)
  expect(stdout).toMatch(/^Exit codes: 0 .*, 1 .*, 2 /m)
})

test('millpond --version is the version of the package', async () => {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  for (const flag of ['--version', '-v']) {
    expect(await millpond([flag])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' })
  }
})

test('millpond without a command prints the help as an error', async () => {
  const { code, stdout, stderr } = await millpond([])
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain('Usage: millpond')
})

test.each([
  ['an unknown command', ['docter'], 'docter'],
  ['a URL in place of a command', ['postgres://app:not-to-be-seen@localhost/x'], 'postgres://app:***@localhost/x'],
  ['an unknown option', ['run', 'options.mjs', '--limt', '3'], '(Did you mean --limit?)'],
  ['an unknown option that is an address', ['doctor', '--a:not-to-be-seen@localhost'], 'unknown option'],
  ['no module', ['run'], 'module'],
  ['two addresses', ['doctor', 'postgres://a/b', 'postgres://a:not-to-be-seen@b/c'], 'Expected 1 argument but got 2'],
  ['an option without its value', ['doctor', '--limit'], '--limit'],
  ['no workers', ['run', 'options.mjs', '--workers', '0'], 'a whole number from 1 to 1024'],
  ['too many workers', ['run', 'options.mjs', '--workers', '1025'], 'a whole number from 1 to 1024'],
  ['half a worker', ['run', 'options.mjs', '--workers=1.5'], '1.5'],
  ['a negative limit', ['run', 'options.mjs', '--limit', '-1'], '--limit'],
  ['a limit in words', ['doctor', '--limit', 'many'], 'a whole number from 1'],
  ['a limit that is hexadecimal', ['doctor', '--limit', '0x10'], 'a whole number from 1'],
  ['no time', ['doctor', '--timeout-ms', '0'], '--timeout-ms'],
])('millpond refuses %s', async (_, args, words) => {
  expect(await failure(2, args)).toContain(words)
})
