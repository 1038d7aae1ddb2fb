import { setTimeout as sleep } from 'node:timers/promises'
import logUpdate from 'log-update'
import { createService, serverModule, taskModule } from '../src/service/index.ts'
import type { Service } from '../src/service/index.ts'
import { setDatabaseUrl } from './demo/database-url.ts'
import { drive } from './demo/load.ts'
import { ours } from './demo/ours.ts'
import { errorLines, memberTable } from './demo/report.ts'
import { Tally } from './demo/tally.ts'
import type * as tasks from './demo/tasks.ts'
import { usual } from './demo/usual.ts'
import { Witness } from './demo/witness.ts'
import { startServer } from './support/embedded.ts'

// One limit over a service of six threads, on a real server, and the same load the usual way.
//   DATABASE_URL    your own server instead of an embedded one
//   DEMO_SECONDS    length of each of the two runs; default: 10 and 4

const limit = 10
const seconds = Number(process.env['DEMO_SECONDS'] ?? 10)
const usualSeconds = Math.min(4, seconds)
const threads = 6

function service(url: string, connections: number): Service<typeof tasks> {
  return createService({
    url,
    limit: { name: `demo, ${connections}`, connections },
    pool: { acquireTimeoutMs: 10_000 },
    tasks: {
      module: taskModule<typeof tasks>(new URL('./demo/tasks.js', import.meta.url)),
      workers: 4,
      concurrency: 8,
    },
    servers: { http: { module: serverModule(new URL('./demo/server.js', import.meta.url)) } },
  })
}

/** A line that tells how it goes: rewritten on a terminal, once a second elsewhere. */
async function tellProgress(line: () => string, until: Promise<unknown>): Promise<void> {
  let running = true
  const ended = until.finally(() => (running = false))
  while (running) {
    if (process.stdout.isTTY) logUpdate(line())
    else console.log(line())
    await Promise.race([sleep(process.stdout.isTTY ? 100 : 1_000), ended])
  }
  if (process.stdout.isTTY) logUpdate.clear()
}

async function runOurs(url: string, adminUrl: string): Promise<boolean> {
  console.log(`\nmillpond: 4 task workers, 1 server worker and the main thread under one limit of ${limit}\n`)
  const witness = new Witness(adminUrl)
  await witness.ready()
  const tally = new Tally()
  const running = service(url, limit)
  await running.start()
  const startedAt = performance.now()
  const load = drive({ service: running, way: 'viaMillpond', main: ours(running.pool), seconds, tally })
  const held = setInterval(() => noteHeld(running, tally), 20)
  await tellProgress(() => {
    const { broker } = running.pool.stats()
    const elapsed = ((performance.now() - startedAt) / 1000).toFixed(1)
    return `${elapsed} s  ${tally.done} done, ${tally.lost} lost  the server counts ${witness.now}, at most ${witness.peak}, of ${limit}  ${broker?.moves ?? 0} permits moved`
  }, load)
  await load
  clearInterval(held)
  const { broker } = running.pool.stats()
  await running.close()
  await witness.stop()

  console.log(memberTable(tally, { withWaits: true }))
  for (const line of errorLines(tally)) console.log(line)
  console.log(`limit:                        ${limit}`)
  console.log(`peak as the server counted:   ${witness.peak}  (${witness.samples} looks)`)
  console.log(`permits moved:                ${broker?.moves ?? 0}`)
  console.log(`lost:                         ${tally.lost} of ${tally.done + tally.lost}`)
  const looked = witness.samples > 0 && witness.peak > 0
  return tally.lost === 0 && tally.done > 0 && looked && witness.peak <= limit
}

/** The most that each member held at any time. */
function noteHeld(running: Service<typeof tasks>, tally: Tally): void {
  for (const { threadId, held } of running.pool.stats().broker?.members ?? []) {
    const label = labelOf(threadId, tally)
    if (label !== undefined) tally.member(label).held = Math.max(tally.member(label).held, held)
  }
}

function labelOf(threadId: number, tally: Tally): string | undefined {
  if (threadId === 0) return 'main thread'
  return tally.taskLabel(threadId) ?? (tally.members.has('server worker') ? 'server worker' : undefined)
}

async function runUsual(url: string, adminUrl: string, maxConnections: string): Promise<void> {
  console.log(`\nThe usual way: a postgres.js pool of 10 in each of the ${threads} threads, ${maxConnections}\n`)
  const witness = new Witness(adminUrl)
  await witness.ready()
  const tally = new Tally()
  const running = service(url, 1)
  await running.start()
  const load = drive({ service: running, way: 'theUsualWay', main: usual, seconds: usualSeconds, tally })
  await tellProgress(
    () => `${tally.done} done, ${tally.lost} lost  the server counts ${witness.now}, at most ${witness.peak}`,
    load,
  )
  await load
  await running.close()
  await witness.stop()
  console.log(memberTable(tally, { withWaits: false }))
  for (const line of errorLines(tally)) console.log(line)
  console.log(`lost:                         ${tally.lost} of ${tally.done + tally.lost}`)
}

async function main(): Promise<boolean> {
  const own = process.env['DATABASE_URL']
  // Enough for the limit, for the three slots that PostgreSQL keeps for superusers, and for the witness.
  const embedded = own === undefined ? await startServer({ max_connections: 17 }) : undefined
  try {
    const url = own ?? String(embedded?.url)
    setDatabaseUrl(url)
    const succeeded = await runOurs(url, url)
    await runUsual(url, url, own === undefined ? 'max_connections = 17' : 'on your server')
    console.log(
      succeeded
        ? '\nmillpond lost nothing and never exceeded the limit.'
        : '\nmillpond lost something or exceeded the limit: see above.',
    )
    return succeeded
  } finally {
    await embedded?.stop()
  }
}

main().then(
  (succeeded) => {
    // oxlint-disable-next-line no-process-exit -- the usual way leaves pools open that would keep the process
    process.exit(succeeded ? 0 : 1)
  },
  (error: unknown) => {
    console.error(error)
    // oxlint-disable-next-line no-process-exit -- likewise
    process.exit(1)
  },
)
