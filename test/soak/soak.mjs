import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { Cast } from './cast.mjs'
import { Random } from './random.mjs'
import { schedule } from './schedule.mjs'
import { Verdict, disagreement } from './verdict.mjs'
import { Witness, others } from './witness.mjs'

const built = new URL('../../dist', import.meta.url).href
const role = 'soak'

/**
 * Threads with pools under one limit, random load and every kind of death, for so many seconds; then rest, and a look
 * at what is left. Resolves with what was found wrong, and figures.
 *
 * @param options.dist where the build is, as a URL
 * @param options.untilExcess ends as soon as the server has counted too many
 */
export async function soak({ dist = built, seed, seconds, limit, callers = 4, longQueries = 3, untilExcess = false }) {
  const { createBroker } = await import(`${dist}/src/index.js`)
  const { startServer } = await import(`${built}/bench/support/embedded.js`)
  const verdict = new Verdict()
  const server = await startServer({ max_connections: 200 })
  const admin = postgres(server.url, { max: 1, onnotice: () => {} })
  const onUnhandled = (reason) => verdict.report('unplanned', `in the main thread: ${reason?.stack ?? reason}`)
  process.on('unhandledRejection', onUnhandled)
  try {
    const url = await prepare(admin, server.url)
    const broker = createBroker({ name: 'soak', limit })
    const witness = new Witness(server.url, limit, ({ at, count, allowed, list }) => {
      const late = performance.timeOrigin + performance.now() - at
      const ledger = JSON.stringify({ ...broker.stats(), members: undefined })
      verdict.report(
        'limit',
        `${count} of ${allowed}: ${JSON.stringify(list)}; ledger ${Math.round(late)} ms later: ${ledger}`,
      )
    })
    await witness.ready()
    const cast = new Cast({
      assignment: { dist, url, broker: 'soak', callers, longQueries },
      seed,
      report: (rule, detail) => verdict.report(rule, detail),
    })
    const run = {
      verdict,
      broker,
      witness,
      cast,
      admin,
      limit,
      lowest: limit,
      random: new Random(seed + 1),
      terminated: 0,
      resizes: 0,
    }
    const startedAt = performance.now()
    const means = meanStates(broker)
    await storm(run, { seed, seconds, untilExcess })
    const states = means()
    if (!untilExcess) {
      if (await within(40_000, () => cast.isComplete)) await rest(run)
      else verdict.report('hang', `not all threads came up again: ${cast.missing}`)
    }
    run.isOver = true
    await cast.end()
    const seen = await witness.stop()
    if (seen.samples < 20 * seconds && !untilExcess) verdict.report('blind', `only ${seen.samples} samples`)
    const restMs = Math.round(performance.now() - startedAt - seconds * 1_000)
    const figures = {
      restMs,
      states,
      ...seen,
      ...cast.figures(),
      deaths: cast.deaths,
      backends: run.terminated,
      resizes: run.resizes,
    }
    return { violations: verdict.violations, figures, moves: broker.stats().moves }
  } finally {
    process.off('unhandledRejection', onUnhandled)
    await admin.end({ timeout: 5 })
    await server.stop()
  }
}

/**
 * Does not listen to those who cancel it, so that its session outlives its connection for a while. It ends before the
 * second is over after which a reaper without a living connection takes it on trust that there is nothing left.
 */
const deaf = `
  create function deaf() returns void language plpgsql as $$
  begin
    for i in 1..16 loop
      begin perform pg_sleep(0.05); exception when query_canceled then null; end;
    end loop;
  end $$`

/** A database for the pools, and a role of their own. */
async function prepare(admin, serverUrl) {
  await admin.unsafe(`create role ${role} login password '${role}'`)
  await admin.unsafe(`create database ${role} owner ${role}`)
  const url = new URL(serverUrl)
  Object.assign(url, { username: role, password: role, pathname: `/${role}` })
  const sql = postgres(url.href, { max: 1 })
  await sql`create unlogged table note (value int)`
  await sql.unsafe(deaf)
  await sql.end()
  return url.href
}

/** Load and faults, as scheduled. */
async function storm(run, { seed, seconds, untilExcess }) {
  const { verdict, broker, cast, limit, witness } = run
  const resizable = typeof broker.resize === 'function'
  const startedAt = performance.now()
  const over = () => untilExcess && verdict.has('limit')
  cast.fill()
  for (const event of schedule({ seed, seconds, limit, resizable })) {
    while (performance.now() - startedAt < event.at && !over()) await sleep(10)
    if (over()) return
    if (event.kind === 'backends') await terminateBackends(run)
    else if (event.kind === 'resize') void resize(run, event.limit)
    else cast.kill(event)
  }
  while (performance.now() - startedAt < seconds * 1_000 && !over()) await sleep(10)
  // At rest the limit is reached on purpose: that proves nothing about the storm.
  if (!untilExcess && witness.peak < run.lowest) {
    verdict.report('blind', `never more than ${witness.peak} of ${run.lowest} were there`)
  }
}

async function terminateBackends(run) {
  const pids = await run.admin`
    select pg_terminate_backend(pid) from pg_stat_activity where usename = ${role}
    order by random() limit ${run.random.from(1, 2)}`
  run.terminated += pids.length
}

/**
 * One at a time: until it has settled, there may be as many as before, or as now, whichever is more. While threads go on
 * dying it may take its time, since what they leave behind has to be reaped first.
 */
async function resize(run, limit) {
  if (run.resizing) return
  run.resizing = true
  run.resizes++
  run.witness.allowed = Math.max(run.limit, limit)
  run.broker.resize(limit)
  run.limit = limit
  run.lowest = Math.min(run.lowest, limit)
  const inUse = () => {
    const { held, closing, granted, limbo } = run.broker.stats()
    return held + closing + granted + limbo
  }
  while (inUse() > limit && !run.isOver) await sleep(20, undefined, { ref: false })
  run.witness.allowed = limit
  run.resizing = false
}

/** What the permits were doing, on the average until the function that is returned is called. */
function meanStates(broker) {
  const sums = { free: 0, granted: 0, held: 0, closing: 0, limbo: 0 }
  let looks = 0
  const timer = setInterval(() => {
    const stats = broker.stats()
    looks++
    for (const state of Object.keys(sums)) sums[state] += stats[state]
  }, 20)
  return () => {
    clearInterval(timer)
    return Object.fromEntries(Object.entries(sums).map(([state, sum]) => [state, Number((sum / looks).toFixed(2))]))
  }
}

/** No more faults: everybody finishes, and what is true then has to be true in the ledger, the pools and the server. */
async function rest(run) {
  const { verdict, broker, cast, admin } = run
  const sessions = () =>
    admin.unsafe(`select pid, application_name as name, state from pg_stat_activity where ${others}`)
  cast.isOver = true
  await cast.tell({ do: 'stop' }, 15_000)

  if (!(await within(15_000, () => !run.resizing))) {
    verdict.report('hang', `resize to ${run.limit}: ${JSON.stringify(broker.stats())}`)
  }
  let last
  // What the dead have left is reaped one by one, with a second of grace for each: nobody wants a connection now.
  const agrees = await within(15_000 + 3_000 * run.limit, async () => {
    last = disagreement({
      stats: broker.stats(),
      pools: await cast.tell({ do: 'stats' }, 5_000),
      sessions: await sessions(),
    })
    return last === undefined
  })
  if (!agrees) verdict.report('ledger', last)

  const got = await cast.tell({ do: 'fill', timeoutMs: 3_000 }, 10_000)
  const opened = got.reduce((sum, count) => sum + count, 0)
  const counted = (await sessions()).length
  const { held } = broker.stats()
  if (opened !== run.limit || counted !== run.limit || held !== run.limit) {
    const stats = JSON.stringify(broker.stats())
    verdict.report(
      'lost',
      `${opened} leases, ${counted} on the server and ${held} in the ledger, of ${run.limit}: ${stats}`,
    )
  }

  await cast.tell({ do: 'close' }, 15_000)
  const isEmpty = async () => {
    const { free, members } = broker.stats()
    return cast.isEmpty && free === run.limit && members.length === 0 && (await sessions()).length === 0
  }
  if (!(await within(10_000, isEmpty))) {
    verdict.report('left', `${JSON.stringify(await sessions())}; ledger ${JSON.stringify(broker.stats())}`)
  }
  const closed = await Promise.race([broker.close(), sleep(8_000, 'not closed', { ref: false })])
  if (closed) verdict.report('hang', 'broker.close()')
}

async function within(ms, condition) {
  const until = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > until) return false
    await sleep(20)
  }
  return true
}
