import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

let db: TestDatabase
let app: string

/**
 * A project beside this one that has installed the package as it is published: unpacked from its tarball. What it depends
 * on is linked, so that nothing is fetched.
 */
beforeAll(async () => {
  db = await createDatabase()
  app = mkdtempSync(join(tmpdir(), 'clients-'))
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', app], { cwd: root })
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }]
  const modules = join(app, 'node_modules')
  mkdirSync(modules)
  await run('tar', ['-xzf', filename], { cwd: app })
  renameSync(join(app, 'package'), join(modules, 'millpond'))
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { dependencies: object }
  const beside = ['postgres', 'drizzle-orm', 'kysely', 'kysely-postgres-js', '@types/node']
  for (const name of [...Object.keys(dependencies), ...beside]) {
    mkdirSync(dirname(join(modules, name)), { recursive: true })
    symlinkSync(join(root, 'node_modules', name), join(modules, name), 'junction')
  }
  cpSync(join(root, 'test', 'clients'), app, { recursive: true })
  writeFileSync(join(app, 'package.json'), '{ "type": "module", "private": true }')
})

afterAll(async () => {
  rmSync(app, { recursive: true, force: true })
  await db.drop()
})

/** Cannot stand in a file of this project, which has no such syntax. */
const required = `
import postgres = require('millpond/postgres')
const sql: postgres.Sql = postgres('postgres://h/d', { max: 1 })
const pool: postgres.PostgresPool = postgres.createPool('postgres://h/d')
export = { sql, pool }`

function shown({ stdout, stderr }: { stdout: string; stderr: string }): string {
  return `${stdout}${stderr}`.trim()
}

/** What a program says: nothing but what it is to say, if all is well. */
async function said(url: string, ...words: string[]): Promise<string> {
  const env = { ...process.env, DATABASE_URL: url, NODE_NO_WARNINGS: '1' }
  return run(process.execPath, words, { cwd: app, env, timeout: 25_000 }).then(shown, shown)
}

test.concurrent.for<readonly [client: string, mode: string]>([
  ['drizzle', 'drop-in'],
  ['drizzle', 'ambient'],
  ['drizzle', 'pool'],
  ['kysely', 'drop-in'],
  ['kysely', 'ambient'],
  ['kysely', 'pool'],
])('%s runs unchanged: %s', async ([client, mode], { onTestFinished }) => {
  const name = `${db.name}_${client}_${mode.replace('-', '_')}`
  await db.admin.unsafe(`create database ${name}`)
  onTestFinished(async () => void (await db.admin.unsafe(`drop database ${name} with (force)`)))
  const url = db.url.replace(db.name, name)
  expect(await said(url, `${client}.mjs`, mode)).toBe(`${client} ${mode} ok`)
})

test('require() gives what it gives of postgres.js', async () => {
  expect(await said(db.url, 'require.cjs')).toBe('require ok')
})

test('types are those of postgres.js', async () => {
  const options = {
    module: 'nodenext',
    target: 'es2023',
    lib: ['es2023', 'esnext.disposable'],
    types: ['node'],
    strict: true,
    noEmit: true,
    skipLibCheck: true,
  }
  const files = ['types.ts', 'required.cts']
  writeFileSync(join(app, 'required.cts'), required)
  writeFileSync(join(app, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files }))
  expect(await said(db.url, join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', '.')).toBe('')
})
