// Runs what leans on threads, their deaths and the end of processes with other versions of Node:
//
//   npm run test:nodes             with 20, 22, 24 and 26
//   npm run test:nodes -- 24 26    with these
//   npm run test:nodes -- 22 --file test/examples/http.test.ts    with this one, and of the tests only these
//
// Each is installed from npm (the package "node" brings the binary) into a temporary folder.
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'

const root = fileURLToPath(new URL('../..', import.meta.url))
const leaning = [
  ...['quiet', 'deaths', 'out-of-memory', 'limit', 'blocked', 'death'].map((name) => `test/threads/${name}.test.ts`),
  // One port for many threads is there from Node 22.12 on.
  ...['servers', 'servers-listen', 'signals', 'tasks-killed', 'tasks-crashing'].map(
    (name) => `test/service/${name}.test.ts`,
  ),
  'test/examples/http.test.ts',
]
const { values, positionals } = parseArgs({
  options: { file: { type: 'string', multiple: true, default: leaning } },
  allowPositionals: true,
})
const files = values.file
const majors = positionals.length > 0 ? positionals : ['20', '22', '24', '26']

const execute = promisify(execFile)
const folder = mkdtempSync(join(tmpdir(), 'millpond-nodes-'))
const windows = process.platform === 'win32'

async function install(major) {
  const prefix = join(folder, major)
  const options = ['install', '--no-save', '--no-audit', '--no-fund', '--prefix', prefix]
  await execute('npm', [...options, `node@${major}`], { shell: windows })
  const binary = join(prefix, 'node_modules', 'node', 'bin', windows ? 'node.exe' : 'node')
  if (!existsSync(binary)) throw new Error(`npm has installed node@${major} without its binary: are scripts allowed?`)
  return binary
}

async function run(major) {
  const binary = await install(major)
  const { stdout } = await execute(binary, ['--version'])
  const report = join(folder, `${major}.json`)
  const vitest = join(root, 'node_modules', 'vitest', 'vitest.mjs')
  const startedAt = performance.now()
  const output = await execute(binary, [vitest, 'run', ...files, '--reporter=json', `--outputFile=${report}`], {
    cwd: root,
    // Children that are started as "node" are to be of the same version.
    env: { ...process.env, DEATHS: 'short', PATH: `${dirname(binary)}${delimiter}${process.env.PATH}` },
    maxBuffer: 64 * 1024 * 1024,
  }).then(
    () => '',
    (error) => `${error.stdout}${error.stderr}`,
  )
  const seconds = (performance.now() - startedAt) / 1_000
  const version = stdout.trim()
  if (!existsSync(report)) return { version, passed: 0, failed: 1, seconds, failures: [output] }
  const { numPassedTests: passed, numFailedTests, testResults } = JSON.parse(readFileSync(report, 'utf8'))
  const failures = []
  for (const { name, message, assertionResults } of testResults) {
    for (const { status, fullName, failureMessages } of assertionResults) {
      if (status === 'failed') failures.push(`${fullName}\n    ${failureMessages.join('\n    ')}`)
    }
    // A whole file that could not be run, or whose process died.
    if (message) failures.push(`${name}\n    ${message}`)
  }
  // Errors outside of any test fail the run, too.
  if (output !== '' && failures.length === 0) failures.push(output)
  return { version, passed, failed: Math.max(numFailedTests, failures.length), seconds, failures }
}

const rows = []
try {
  for (const major of majors) {
    const row = await run(major)
    rows.push(row)
    for (const failure of row.failures) process.stdout.write(`${row.version}: ${failure}\n\n`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}

process.stdout.write('Node        passed  failed  seconds\n')
for (const { version, passed, failed, seconds } of rows) {
  const columns = [version.padEnd(10), String(passed).padStart(8), String(failed).padStart(8)]
  process.stdout.write(`${columns.join('')}${seconds.toFixed(1).padStart(9)}\n`)
}
process.exitCode = rows.some(({ failed }) => failed > 0) ? 1 : 0
