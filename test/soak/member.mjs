// A thread with a pool under the shared limit, and callers who use it in every way until they are told to stop.
import { workerData } from 'node:worker_threads'
import postgres from 'postgres'
import { die } from './deaths.mjs'
import { Lateness } from './lateness.mjs'
import { Abort, Load, Mistake, acquireTimeoutMs } from './load.mjs'
import { Random } from './random.mjs'
import { Starter } from './starter.mjs'

const { dist, url, broker, seat, seed, callers, longQueries, port } = workerData
const { PoolError } = await import(`${dist}/src/index.js`)
const { createPool } = await import(`${dist}/src/postgres/index.js`)

const random = new Random(seed)
const counts = { acquires: 0, done: 0, errors: {} }
/** What a busy pool may say to its callers. Anything else is a fault of it. */
const expected = new Set([
  'ERR_ACQUIRE_TIMEOUT',
  'ERR_POOL_CLOSED',
  'ERR_CONNECT',
  'ERR_CONNECTION_LOST',
  'ERR_LEASE_REVOKED',
  'ERR_OUTCOME_UNKNOWN',
  'ERR_TRANSACTION_TIMEOUT',
  '57P01', // pg_terminate_backend
  '57014', // cancelled
])

function report(rule, detail) {
  port.postMessage({ violation: { rule, detail: `${seat}: ${detail}` } })
}

const lateness = new Lateness((timeoutMs) => {
  report('deadline', `an acquire with ${timeoutMs} ms is unanswered; pool ${JSON.stringify(pools.now.stats())}`)
})

const watch = {
  acquire(timeoutMs) {
    counts.acquires++
    const answered = lateness.begin(timeoutMs)
    return () => {
      const late = answered()
      if (late > 100) report('deadline', `an acquire with ${timeoutMs} ms was answered ${Math.round(late)} ms late`)
    }
  },
  done() {
    counts.done++
  },
  rejected(error) {
    const isOurs = error instanceof Abort || error instanceof Mistake
    // A query that was cancelled before it was sent fails as it does with postgres.js: a plain error with the code.
    const isCancel = error?.code === '57014' && !(error instanceof postgres.PostgresError)
    const isTyped = error instanceof PoolError || error instanceof postgres.PostgresError || isCancel
    const name = isOurs ? error.constructor.name : String(error?.code ?? error)
    counts.errors[name] = (counts.errors[name] ?? 0) + 1
    if (!isOurs && !(isTyped && expected.has(error.code))) report('typed', `${name}: ${error?.stack ?? error}`)
  },
}

const pools = {
  now: makePool(),
  async replace(options) {
    const { now } = this
    this.now = makePool()
    await now.close(options)
  },
}

function makePool() {
  return createPool(url, {
    name: seat,
    broker,
    max: 4,
    acquireTimeoutMs,
    resetTimeoutMs: 500,
    closeTimeoutMs: 1_000,
    idleTimeoutMs: random.from(100, 2_000),
    maxLifetimeMs: random.of([300, 60_000]),
    pingAfterIdleMs: random.from(1, 100),
    // Without them a session in a long query does not notice by itself that nobody is there any more.
    serverChecks: random.chance(0.5) ? 'auto' : false,
    fetch_types: random.chance(0.2),
    pipelining: random.of([1, 1, 4]),
  })
}

let stopped = false
let leases = []
const load = new Load({ random, pools, watch, longQueries })
const calling = Promise.all(
  Array.from({ length: callers }, async () => {
    while (!stopped) await load.next()
  }),
)

const figures = () => ({ ...counts, worstStallMs: lateness.worstStallMs, worstLateMs: lateness.worstMs })
const ticking = setInterval(() => port.postMessage({ figures: figures() }), 200)
const starter = new Starter((news) => port.postMessage({ news }))

const orders = {
  die: ({ kind }) => die[kind](),
  start: (order) => starter.start(order),
  terminate: ({ id }) => starter.terminate(id),
  async stop() {
    stopped = true
    await calling
  },
  stats() {
    const { open, opening, closing, leased, waiting } = pools.now.stats()
    return { open, opening, closing, leased, waiting }
  },
  /** As many leases as it can get, to be kept. */
  async fill({ timeoutMs }) {
    const answers = await Promise.allSettled(Array.from({ length: 4 }, () => pools.now.acquire({ timeoutMs })))
    leases = answers.filter(({ status }) => status === 'fulfilled').map(({ value }) => value)
    for (const { reason } of answers) if (reason !== undefined) watch.rejected(reason)
    return leases.length
  },
  async close() {
    for (const lease of leases) await lease.release()
    await pools.now.close()
    clearInterval(ticking)
    port.postMessage({ figures: figures() })
  },
}

port.on('message', async (order) => {
  const answer = await orders[order.do](order)
  port.postMessage({ answered: order.do, answer })
  if (order.do === 'close') port.close()
})
port.postMessage({ up: true })
