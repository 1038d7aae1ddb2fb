import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { sendAtOnce } from '../../src/postgres/send-at-once.ts'
import { DriverUnderTest } from '../support/connection.ts'
import { createDatabase } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'

/** Named as postgres.js's own. */
function senderOf(send: () => void): () => void {
  return function nextWrite() {
    send()
  }
}

function mine(): void {}

describe('sendAtOnce()', () => {
  test('sends when it has been handed over, not before and not at the end of the turn', () => {
    const said: string[] = []
    sendAtOnce(() => {
      setImmediate(senderOf(() => said.push('sent')))
      said.push('handed over')
    })
    said.push('returned')
    expect(said).toEqual(['handed over', 'sent', 'returned'])
  })

  test('leaves everybody else’s calls to those who get them otherwise', async () => {
    const usual = vi.fn<(fn: () => void) => string>(() => 'theirs')
    const real = globalThis.setImmediate
    globalThis.setImmediate = usual as unknown as typeof setImmediate
    onTestFinished(() => {
      globalThis.setImmediate = real
    })
    let handle: unknown
    sendAtOnce(() => {
      handle = setImmediate(mine)
    })
    expect(handle).toBe('theirs')
    expect(usual.mock.calls).toEqual([[mine]])
    expect(globalThis.setImmediate).toBe(usual)
  })

  test('puts setImmediate back when it throws, and sends what there is', () => {
    const real = globalThis.setImmediate
    const send = vi.fn<() => void>()
    const hand = (): void => {
      setImmediate(senderOf(send))
      throw new Error('a serializer')
    }
    expect(() => sendAtOnce(hand)).toThrow('a serializer')
    expect(globalThis.setImmediate).toBe(real)
    expect(send).toHaveBeenCalledTimes(1)
  })

  test('where the global object cannot be changed, it is sent at the end of the turn', async () => {
    const real = globalThis.setImmediate
    Object.defineProperty(globalThis, 'setImmediate', { value: real, writable: false, configurable: true })
    onTestFinished(() => {
      Object.defineProperty(globalThis, 'setImmediate', { value: real, writable: true, configurable: true })
    })
    const send = vi.fn<() => void>()
    sendAtOnce(() => setImmediate(senderOf(send)))
    expect(send).not.toHaveBeenCalled()
    await new Promise((resolve) => {
      real(resolve)
    })
    expect(send).toHaveBeenCalledTimes(1)
  })
})

describe('a query', () => {
  let db: TestDatabase
  beforeAll(async () => {
    db = await createDatabase()
  })
  afterAll(() => db.drop())

  test('is on its way before the turn of the event loop ends', async () => {
    const subject = new DriverUnderTest(db.url)
    const connection = await subject.open()
    const sql = subject.sql(connection)
    await sql`select 1 as a`
    const before = connection.roundTrips
    const turn = new Promise<number>((resolve) => {
      setImmediate(() => resolve(connection.roundTrips))
    })
    // The first check of this turn: what waits for its end has been queued before the query.
    const asked = sql`select 1 as a`.execute()
    expect(await turn).toBe(before + 1)
    await asked
    await subject.close(connection)
  })
})
