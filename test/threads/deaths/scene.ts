import { expect } from 'vitest'
import { createBroker } from 'millpond'
import type { Broker } from 'millpond'
import { createPool } from 'millpond/postgres'
import { until } from '../../support/database.ts'
import type { Session } from '../../support/database.ts'
import type { TestRole } from '../../support/role.ts'
import { Gate } from './gate.ts'
import { Mortal } from './mortal.ts'
import type { Death, Kind, Phase } from './table.ts'
import { Witness } from './witness.ts'

/** Connections that all may have together; the server refuses the role one more than that. */
export const limit = 4

type Pool = ReturnType<typeof createPool>

interface Scene {
  readonly role: TestRole
  readonly broker: Broker
  readonly gate: Gate
  /** A member that lives on. Keeps one connection, in all phases but one from before the others come. */
  readonly survivor: Pool
  readonly mortal: Mortal
  readonly kind: Kind
  /** How many connections the mortal one may have. */
  readonly room: number
  /** Waits until those who are to die have just so many sessions, in this state. */
  readonly orphansToBe: (count: number, state?: string) => Promise<void>
  /** One more mortal thread, which goes straight to the server. */
  readonly another: () => Mortal
}

/** Ends what the survivor does meanwhile. */
type After = () => Promise<void>

const isTerminate = (chunk: Buffer): boolean => chunk[0] === 'X'.charCodeAt(0)
const stubborn = `do $$ begin
  loop begin perform pg_sleep(30); exception when query_canceled then null; end; end loop;
end $$`

/** How a thread is brought into each phase. Nothing is killed before it is there, as the server or the broker tells. */
const stages: Record<Phase, (scene: Scene) => Promise<After | void>> = {
  async enrolling() {},

  async idle({ mortal, room, orphansToBe }) {
    await mortal.tell('idle', room)
    await orphansToBe(room, 'idle')
  },

  async 'login unsent'({ mortal, room, gate, broker }) {
    gate.hold({ from: 'client', fits: () => true })
    await mortal.tell('acquire', room)
    await until(() => gate.held === room, 'logins that are held back')
    expect(broker.stats().held).toBe(limit)
  },

  async 'login unheard'({ mortal, room, gate, orphansToBe }) {
    gate.hold({ from: 'server', fits: (chunk) => chunk.includes('server_version') })
    await mortal.tell('acquire', room)
    await orphansToBe(room, 'idle')
    await until(() => gate.held === room, 'answers that are held back')
  },

  async 'in a transaction'({ mortal, room, orphansToBe }) {
    await mortal.tell('transaction', room)
    await orphansToBe(room, 'idle in transaction')
  },

  async running({ mortal, room, orphansToBe }) {
    await mortal.tell('query', { count: room, text: 'select pg_sleep(30)' })
    await orphansToBe(room, 'active')
  },

  async 'not to be cancelled'({ mortal, room, orphansToBe }) {
    await mortal.tell('query', { count: room, text: stubborn })
    await orphansToBe(room, 'active')
  },

  async retiring({ mortal, room, gate, survivor, broker, orphansToBe }) {
    await mortal.tell('idle', room)
    await orphansToBe(room, 'idle')
    gate.hold({ from: 'client', fits: isTerminate })
    const stop = keepBusy(survivor)
    await until(() => broker.stats().closing > 0 && gate.held > 0, 'a close that is held back')
    return stop
  },

  async granted({ mortal, kind, survivor, broker }) {
    const release = await takeAll(survivor)
    await mortal.tell('acquire', 1)
    await until(() => broker.stats().members.some(({ held, wants }) => held === 0 && wants === 1), 'a want')
    await mortal.block(kind === 'loop' ? 'loop' : 'wait')
    await release(1)
    await until(() => broker.stats().granted === 1, 'a grant that lies')
    return release
  },

  async queued({ mortal, survivor, broker }) {
    const release = await takeAll(survivor)
    await mortal.tell('acquire', 3)
    await until(() => broker.stats().members.some(({ held, wants }) => held === 0 && wants === 3), 'a want')
    return release
  },

  async reaping({ mortal, survivor, gate, broker, orphansToBe, another }) {
    await mortal.tell('idle', 1)
    const first = another()
    await first.tell('query', { count: 2, text: 'select pg_sleep(30)' })
    await orphansToBe(2, 'active')
    gate.hold({ from: 'client', fits: (chunk) => chunk.includes('pg_terminate_backend') })
    await first.worker.terminate()
    await until(() => gate.held === 1, 'a reaping that is held back')
    // Only now is there somebody else to reap.
    await survivor.open()
    await orphansToBe(3)
    expect(broker.stats()).toMatchObject({ limbo: 2, held: 2 })
  },
}

/** Leases that last a while, one after the other, and more at a time than there are connections for. */
function keepBusy(pool: Pool): After {
  let busy = true
  const load = Promise.all(
    Array.from({ length: 2 * limit }, async () => {
      while (busy) await pool.sql`select pg_sleep(0.005)`
    }),
  )
  return async () => {
    busy = false
    await load
  }
}

/** Has the pool lease all there are. They are given back from the last on, the connection of the first is kept. */
async function takeAll(pool: Pool): Promise<(count?: number) => Promise<void>> {
  const leases = await Promise.all(Array.from({ length: limit }, () => pool.acquire()))
  return async (count = leases.length) => {
    for (const lease of leases.splice(-count)) await lease.destroy()
  }
}

function kill(mortal: Mortal, phase: Phase, kind: Kind): Promise<number> {
  const terminate = (): void => void mortal.worker.terminate()
  switch (kind) {
    case 'outer':
    case 'owner':
      terminate()
      break
    case 'inner':
      mortal.die('throw')
      break
    case 'loop':
    case 'wait':
    case 'terminate':
      if (phase === 'enrolling') mortal.enrolAndDie(kind)
      else if (kind === 'terminate' || mortal.isBlocked) terminate()
      else void mortal.block(kind).then(terminate)
      break
    case 'throw':
    case 'rejection':
    case 'exit':
    case 'memory':
      if (phase === 'enrolling') mortal.enrolAndDie(kind)
      else mortal.die(kind)
  }
  return mortal.exit
}

let scenes = 0

/**
 * One death, and what comes of it. Resolves with how long after the thread's end all of its permits served again, in ms.
 *
 *   1  the sessions that it has left behind are ended before their permits serve
 *   2  the server never counts more than the limit, nor has it reason to refuse a connection
 *   3  all permits can be had again, by the survivor and by one that comes anew and needs the row of the dead one
 */
export async function die(role: TestRole, { phase, kind }: Death): Promise<number> {
  const hasOwner = kind === 'owner' || kind === 'inner'
  await using broker = createBroker({
    name: `${++scenes}: ${phase}, ${kind}`,
    limit,
    // Not one more than there are before the death, but for one whose enrolment may be lost with its thread: its row
    // is another's only after a minute.
    members: hasOwner || phase === 'enrolling' ? 3 : 2,
  })
  const pool = {
    broker: broker.name,
    acquireTimeoutMs: 20_000,
    connectTimeoutMs: 20_000,
    // The server is not to end by itself what is to be reaped.
    serverChecks: false,
  } as const
  await using gate = await Gate.open(role.url)
  await using survivor = createPool(role.url, { ...pool, min: 1 })
  await using extra = new AsyncDisposables()
  const mortal = extra.add(
    new Mortal({
      url: gate.url,
      direct: role.url,
      pool,
      nest: kind === 'outer' ? 'bare' : hasOwner ? 'owning' : undefined,
      small: kind === 'memory',
    }),
  )
  await Promise.all([mortal.tell('up'), phase === 'reaping' ? undefined : survivor.open()])
  const orphans = async (): Promise<readonly Session[]> =>
    (await role.sessions()).filter(({ name }) => name.startsWith('mortal') || (kind === 'owner' && name === 'outer'))
  const scene: Scene = {
    role,
    broker,
    gate,
    survivor,
    mortal,
    kind,
    room: limit - (hasOwner ? 2 : 1),
    orphansToBe: (count, state) =>
      until(
        async () => {
          const there = await orphans()
          return there.filter((one) => state === undefined || one.state === state).length === count
        },
        `${count} sessions, ${state ?? 'in any state'}`,
      ),
    another: () => extra.add(new Mortal({ url: role.url, direct: role.url, pool })),
  }

  await using witness = new Witness(role)
  const after = await stages[phase](scene)
  const exit = kill(mortal, phase, kind)
  const survivors = kind === 'inner' ? 2 : 1
  await Promise.all([
    exit,
    until(() => {
      const { members, limbo, granted } = broker.stats()
      return members.length === survivors && limbo === 0 && granted === 0
    }, 'permits that serve again'),
  ])
  const servedAt = performance.now()
  expect(await orphans()).toEqual([])

  await after?.()
  await using newcomer = createPool(role.url, pool)
  const leases = await Promise.all([newcomer.acquire(), ...Array.from({ length: limit - 1 }, () => survivor.acquire())])
  for (const lease of leases) await lease.release()
  await until(() => broker.stats().members.length === survivors + 1, 'nobody else')
  const { peak, samples } = await witness.stop()
  expect(samples).toBeGreaterThan(1)
  expect(peak).toBeLessThanOrEqual(limit)
  expect(newcomer.stats().openFailures + survivor.stats().openFailures).toBe(0)
  return Math.max(0, servedAt - (await exit))
}

class AsyncDisposables implements AsyncDisposable {
  readonly #all: AsyncDisposable[] = []

  add<T extends AsyncDisposable>(one: T): T {
    this.#all.push(one)
    return one
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((one) => one[Symbol.asyncDispose]()))
  }
}
