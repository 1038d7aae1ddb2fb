import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { createBroker } from 'millpond'
import { createPool } from 'millpond/postgres'
import type { TestDatabase } from '../support/database.ts'
import { createDatabase, until } from '../support/database.ts'
import type { TestRole } from '../support/role.ts'
import { createRole } from '../support/role.ts'
import { Thread } from './thread.ts'

// A thread dies while it logs in. What it has sent still arrives: its sessions begin when it is long gone, without any
// that could be known for its own before.

let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
})

afterAll(() => database.drop())

/** The server through a network that keeps passwords, and delivers them however the client has fared. */
async function slowNetwork(url: string): Promise<{ url: string; kept: () => number; deliver: () => void }> {
  const target = new URL(url)
  const port = Number(target.port)
  const deliveries: (() => void)[] = []
  const sockets: Socket[] = []
  const listener = createServer({ allowHalfOpen: true }, (client) => {
    const server = connect({ host: target.hostname, port, allowHalfOpen: true })
    for (const socket of [client, server]) sockets.push(socket.on('error', () => undefined))
    let kept: Buffer[] | undefined
    client.on('data', (chunk: Buffer) => {
      if (chunk[0] === 'p'.charCodeAt(0) && !kept) {
        const chunks: Buffer[] = []
        kept = chunks
        deliveries.push(() => void server.end(Buffer.concat(chunks)))
      }
      if (kept) kept.push(chunk)
      else server.write(chunk)
    })
    server.on('data', (chunk) => client.write(chunk))
  })
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    listener.close()
  })
  await new Promise<void>((resolve) => void listener.listen(0, '127.0.0.1', resolve))
  target.port = String((listener.address() as AddressInfo).port)
  return {
    url: target.href,
    kept: () => deliveries.length,
    deliver: () => {
      for (const deliver of deliveries.splice(0)) deliver()
    },
  }
}

/** One that reaps, one that goes on, and three that are under way. */
const limit = 5
const underWay = 3

/** The most sessions that the server counted, with logins that arrive so long after their thread died. */
async function mostWith(role: TestRole, lateMs: number): Promise<{ most: number; servedAfterMs: number }> {
  const network = await slowNetwork(role.url)
  await using broker = createBroker({ name: `logins ${lateMs}`, limit })
  await using reaper = createPool(role.url, { broker: broker.name, min: 1 })
  await reaper.open()
  await using survivor = createPool(role.url, { broker: broker.name, min: 1, acquireTimeoutMs: 20_000 })
  await survivor.open()
  const dying = new Thread(network.url, { broker: broker.name, acquireTimeoutMs: 20_000 })
  void dying.tell('want', underWay)
  await until(() => network.kept() === underWay, 'passwords on their way')
  await dying.terminate()
  const diedAt = performance.now()
  let servedAfterMs = Infinity
  const leases = Promise.all(Array.from({ length: underWay + 1 }, () => survivor.acquire())).then((all) => {
    servedAfterMs = performance.now() - diedAt
    return all
  })
  let most = 0
  let watching = true
  const watch = (async () => {
    while (watching) most = Math.max(most, (await role.sessions()).length)
  })()
  await sleep(lateMs)
  network.deliver()
  const all = await leases
  await sleep(100)
  watching = false
  await watch
  for (const lease of all) await lease.release()
  return { most, servedAfterMs }
}

describe('a login in flight when its thread dies', () => {
  test('is given a second, where the role may not see who logs in', async () => {
    const role = await createRole(database, 100)
    const { most, servedAfterMs } = await mostWith(role, 300)
    expect(most).toBeLessThanOrEqual(limit)
    expect(servedAfterMs).toBeGreaterThan(900)
  })

  test('is waited for as long as it takes, where it may', async () => {
    const role = await createRole(database, 100)
    await database.admin.unsafe(`grant pg_read_all_stats to ${role.name}`)
    const { most, servedAfterMs } = await mostWith(role, 1_500)
    expect(most).toBeLessThanOrEqual(limit)
    expect(servedAfterMs).toBeGreaterThan(1_400)
  })
})
