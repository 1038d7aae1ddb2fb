import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, expect, test } from 'vitest'
import { createDatabase } from './support/database.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
/** Inside the package, so that the examples find it under its own name. */
const folder = join(root, '.examples')

afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Writes every `ts` block into a folder of its section; a block that names its file in its first line is that file. */
function extract(from: string, markdown: string): string[] {
  let section = ''
  const files: string[] = []
  for (const [, heading, code] of markdown.matchAll(/^(##.*)$|^```ts\n([\s\S]*?)^```/gm)) {
    if (heading !== undefined) section = heading.replaceAll(/\W+/g, '-')
    if (code === undefined) continue
    const file = /^\/\/ ([\w.-]+\.ts)/.exec(code)?.[1] ?? `example-${files.length}.ts`
    const place = join(folder, from, section || 'top')
    mkdirSync(place, { recursive: true })
    writeFileSync(join(place, file), `${code}\nexport {}\n`)
    files.push(join(place, file))
  }
  return files
}

/** The examples in the comments of the public faces. */
function commentsOf(file: string): string {
  const text = readFileSync(file, 'utf8')
  return [...text.matchAll(/^ *\/\*\*[\s\S]*?\*\//gm)]
    .map(([comment]) => comment.replaceAll(/^ *(\/\*\*| \*\/?) ?/gm, ''))
    .join('\n')
}

/** The compiler's words about these files, which it writes as JavaScript into a folder if there is one. */
async function compile(files: readonly string[], outDir?: string): Promise<string> {
  const config = {
    extends: '../tsconfig.json',
    compilerOptions: {
      rootDir: '..',
      ...(outDir ? { outDir, sourceMap: false } : { noEmit: true }),
      isolatedDeclarations: false,
      declaration: false,
      declarationMap: false,
      noUnusedLocals: false,
      noPropertyAccessFromIndexSignature: false,
      types: ['node'],
    },
    files,
    include: [],
  }
  const path = join(folder, `tsconfig${outDir ? '.emit' : ''}.json`)
  writeFileSync(path, JSON.stringify(config))
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const run = promisify(execFile)(process.execPath, [tsc, '-p', path], { cwd: root })
  const { stdout } = await run.catch((error: { stdout: string }) => error)
  return stdout
}

const pages = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md'))

test('README, pages and comments: every block of code compiles', async () => {
  rmSync(folder, { recursive: true, force: true })
  const files = extract('README', readFileSync(join(root, 'README.md'), 'utf8'))
  expect(files.length).toBeGreaterThan(8)
  for (const page of pages) {
    files.push(...extract(`docs-${page.slice(0, -3)}`, readFileSync(join(root, 'docs', page), 'utf8')))
  }
  for (const entry of readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })) {
    if (!entry.name.endsWith('.ts')) continue
    const path = join(entry.parentPath, entry.name)
    files.push(...extract(path.slice(root.length).replaceAll(/\W/g, '-'), commentsOf(path)))
  }
  expect(files.length).toBeGreaterThan(12)
  expect(await compile(files)).toBe('')
})

test('docs/testing.md: every example is a test that passes', async () => {
  const files = extract('run-testing', readFileSync(join(root, 'docs', 'testing.md'), 'utf8'))
  const outDir = join(folder, 'out')
  expect(await compile(files, outDir)).toBe('')
  const compiled = files.map((file) => join(outDir, relative(root, file)).replace(/\.ts$/, '.js'))
  const runner = ['--test', '--test-reporter=tap', ...compiled]
  const run = promisify(execFile)(process.execPath, runner, { cwd: root, timeout: 60_000 })
  const { stdout } = await run.catch((error: { stdout: string }) => error)
  expect(stdout).not.toMatch(/^ *not ok/m)
  expect(Number(/^# pass (\d+)$/m.exec(stdout)?.[1])).toBeGreaterThan(10)
})

test('docs/testing-services.md: every example is a test that passes', { timeout: 120_000 }, async () => {
  const files = extract('run-testing-services', readFileSync(join(root, 'docs', 'testing-services.md'), 'utf8'))
  const outDir = join(folder, 'out-services')
  expect(await compile(files, outDir)).toBe('')
  const config = join(outDir, 'vitest.config.mjs')
  const include = ['**/*.test.js', '**/example-*.js']
  writeFileSync(
    config,
    `import { defineConfig } from 'vitest/config'
import root from ${JSON.stringify(join(root, 'vitest.config.ts'))}
export default defineConfig({ resolve: root.resolve, test: { include: ${JSON.stringify(include)}, maxWorkers: 1 } })`,
  )
  await using database = await createDatabase()
  const runner = [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', '--root', outDir, '--config', config]
  const env = { ...process.env, DATABASE_URL: database.url }
  const options = { cwd: outDir, env, timeout: 110_000 }
  const run = promisify(execFile)(process.execPath, [...runner, '--reporter=json'], options)
  const { stdout } = await run.catch((error: { stdout: string }) => error)
  const { testResults } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as {
    testResults: { message: string; assertionResults: { fullName: string; failureMessages: string[] }[] }[]
  }
  const results = testResults.flatMap(({ assertionResults }) => assertionResults)
  expect(testResults.map(({ message }) => message).filter(Boolean)).toEqual([])
  expect(
    results.flatMap(({ fullName, failureMessages }) => failureMessages.map((why) => `${fullName}: ${why}`)),
  ).toEqual([])
  expect(results.length).toBeGreaterThan(10)
})

test('README names every option of a pool, and every error code', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const options = readFileSync(join(root, 'src', 'options.ts'), 'utf8')
  const names = [...(/poolOptionNames[^[]*\[([^\]]*)\]/.exec(options)?.[1]?.matchAll(/'(\w+)'/g) ?? [])].map(
    (match) => match[1],
  )
  expect(names.length).toBeGreaterThan(10)
  for (const name of names.filter((one) => one !== 'clock')) expect(readme).toContain(`\`${name}\``)
  const codes = [...readFileSync(join(root, 'src', 'errors.ts'), 'utf8').matchAll(/'(ERR_\w+)'/g)].map(
    (match) => match[1] ?? '',
  )
  for (const code of new Set(codes)) expect(readme).toContain(code)
})
