// Runs one of docs/examples on a PostgreSQL server of its own, or on that of DATABASE_URL:
//
//   npm run example -- http
//   npm run example -- piscina/after
//   npm run example -- batch --rows 1000000 --workers 2
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import exitHook from 'async-exit-hook'
import { startServer } from '../../dist/bench/support/embedded.js'

// A signal is the example's to hear. The server is stopped when that has ended.
for (const signal of ['SIGINT', 'SIGTERM']) exitHook.unhookEvent(signal)

const [name = 'http', ...args] = process.argv.slice(2)
const script = fileURLToPath(new URL(`../../docs/examples/${name}/main.js`, import.meta.url))
const server = process.env.DATABASE_URL === undefined ? await startServer({ max_connections: 100 }) : undefined
try {
  const env = { ...process.env, DATABASE_URL: process.env.DATABASE_URL ?? server.url }
  const child = spawn(process.execPath, [script, ...args], { env, stdio: 'inherit' })
  process.on('SIGINT', () => {}) // comes to both from a terminal
  process.on('SIGTERM', () => child.kill())
  const [code] = await once(child, 'exit')
  process.exitCode = code ?? 1
} finally {
  await server?.stop()
}
