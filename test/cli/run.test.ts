import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase } from '../support/database.ts'
import { Command, failure, millpond } from './command.ts'

let database: TestDatabase
let env: { DATABASE_URL: string }

beforeAll(async () => {
  database = await createDatabase()
  env = { DATABASE_URL: database.url }
})

afterAll(() => database.drop())

async function running(command: Command): Promise<void> {
  await expect.poll(() => command.stderr, { timeout: 20_000 }).toContain('is running')
}

/** Asks its server, which asks the database and a task. */
async function answer(command: Command): Promise<string> {
  await expect.poll(() => command.stdout).toMatch(/listening on \d+/)
  const port = /listening on (\d+)/.exec(command.stdout)?.[1]
  return (await fetch(`http://127.0.0.1:${port}/`)).text()
}

function workersOf(command: Command): number {
  return command.stdout.match(/^worker \d+$/gm)?.length ?? 0
}

test('run: options are started with what the command line says, and SIGTERM ends it with 0', async () => {
  const command = new Command(['run', './options.mjs', '--workers', '2', '--limit', '5', '--database', database.url])
  await running(command)
  expect(command.stderr).toContain('./options.mjs is running, with at most 5 connections\n')
  expect(await answer(command)).toBe('40')
  await expect.poll(() => workersOf(command)).toBe(2)
  command.child.kill('SIGTERM')
  expect(await command.end()).toBe(0)
  expect(workersOf(command)).toBe(2)
  await database.sessionsToBe(0)
})

test('run: options stand where the command line says nothing, the database is that of DATABASE_URL', async () => {
  const command = new Command(['run', 'options.mjs'], env)
  await running(command)
  expect(command.stderr).toContain('with at most 6 connections')
  expect(await answer(command)).toBe('40')
  await expect.poll(() => workersOf(command)).toBe(1)
  command.child.kill('SIGINT')
  expect(await command.end()).toBe(0)
  expect(workersOf(command)).toBe(1)
})

test('run: --workers is for each of several modules of tasks', async () => {
  const command = new Command(['run', 'grouped.mjs', '--workers', '2', '--limit', '1'], env)
  await running(command)
  expect(command.stderr).toContain('with at most 1 connection\n')
  await expect.poll(() => workersOf(command)).toBe(4)
  command.child.kill('SIGTERM')
  expect(await command.end()).toBe(0)
  expect(workersOf(command)).toBe(4)
})

test('run: a function is told what the command line says, and has the last word', async () => {
  const command = new Command(['run', 'function.mjs', '-w', '3', '-l', '7'], env)
  await running(command)
  expect(command.stdout).toContain(`told [3,7,"/${database.name}",{}]\n`)
  expect(command.stderr).toContain('with at most 8 connections')
  expect(await answer(command)).toBe('40')
  await expect.poll(() => workersOf(command)).toBe(3)
  command.child.kill('SIGTERM')
  expect(await command.end()).toBe(0)
  expect(workersOf(command)).toBe(3)
})

test('run: a service is started as it was made', async () => {
  const command = new Command(['run', 'service.mjs'], env)
  await running(command)
  expect(command.stderr).toContain('with at most 3 connections')
  expect(await answer(command)).toBe('40')
  command.child.kill('SIGTERM')
  expect(await command.end()).toBe(0)
  await database.sessionsToBe(0)
})

test('run: a service that has nothing left to do is closed, and ends with 0', async () => {
  const { code, stdout, stderr } = await millpond(['run', 'once.mjs'], env)
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'done\nclosed\n' })
  expect(stderr).toContain('is running')
  await database.sessionsToBe(0)
})

test('run: a service that its own module closes while it starts ends with 0', async () => {
  expect(await millpond(['run', 'closes-itself.mjs'], env)).toEqual({ code: 0, stdout: 'closed\n', stderr: '' })
})

test('run: a signal that comes before it has started ends it with 0', async () => {
  const command = new Command(['run', 'stuck.mjs'], env)
  await expect.poll(() => command.stdout, { timeout: 10_000 }).toContain('before')
  command.child.kill('SIGTERM')
  expect(await command.end()).toBe(0)
  expect(command.stderr).toBe('')
  await database.sessionsToBe(0)
})

test.each([
  ['a module that is not there', ['nowhere.mjs'], 'Cannot find the module "nowhere.mjs"'],
  ['a folder', ['.'], 'Cannot find the module "."'],
  ['a module without a default export', ['no-default.mjs'], 'it has no default export'],
  ['a default export that is something else', ['odd.mjs'], 'its default export must be a service'],
  ['a function that returns nothing', ['function-of-nothing.mjs'], 'must return a service or the options of one'],
  ['a service and a limit', ['service.mjs', '--limit', '4'], 'Cannot use --limit: "service.mjs" exports a service'],
  ['a service and workers', ['service.mjs', '--workers', '4'], 'Cannot use --workers'],
  ['a service and a database', ['service.mjs', '-d', 'postgres://a:not-to-be-seen@b/c'], 'Cannot use --database'],
  ['no limit at all', ['grouped.mjs'], 'without a limit: give --limit'],
  ['workers where there are no tasks', ['no-tasks.mjs', '--workers', '2'], 'has no tasks'],
  ['an option that the service does not know', ['unknown-option.mjs'], 'Unknown option "worker"'],
  ['a bad URL', ['options.mjs', '--database', 'http://a:not-to-be-seen@b'], 'Cannot read the url "http://a:***@b"'],
])('run: %s ends with 2', async (_, args, words) => {
  expect(await failure(2, ['run', ...args], env)).toContain(words)
})

test('run: no database at all ends with 2', async () => {
  expect(await failure(2, ['run', 'options.mjs'])).toContain('Is DATABASE_URL set?')
})

test.each([
  [
    'a module that throws',
    ['throws.mjs'],
    /^millpond: Cannot load "throws\.mjs" \(.*throws\.mjs:3\): the module does not want to be loaded: postgres:\/\/app:\*\*\*@localhost\/x is not nice$/,
  ],
  ['a module that imports what is not there', ['broken-import.mjs'], 'nowhere.mjs'],
  [
    'a function that throws',
    ['function-throws.mjs'],
    /its function failed \(.*function-throws.mjs:2\): no options today$/,
  ],
  [
    'a server that is not there',
    ['no-tasks.mjs', '-d', 'postgres://app:not-to-be-seen@127.0.0.1:1/x'],
    'Cannot connect to 127.0.0.1:1 as "app" to database "x"',
  ],
  ['a limit that can never be had', ['options.mjs', '--limit', '500'], 'Cannot have 500 connections'],
])('run: %s ends with 1', async (_, args, words) => {
  expect(await failure(1, ['run', ...args], env)).toMatch(words)
})

test('run: a module that is no JavaScript ends with 1, and tells how to see where', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'millpond-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'service.mjs')
  writeFileSync(file, 'export default { limit: 2\n tasks: {} }\n')
  const line = await failure(1, ['run', file], env)
  expect(line).toContain(`Cannot load "${file}" (\`node ${file}\` shows where): Unexpected identifier`)
})
