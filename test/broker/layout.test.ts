import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import {
  elapsed,
  format,
  generationOf,
  header,
  memberOf,
  pack,
  read,
  sizeOf,
  state,
  stateOf,
  tagOf,
  tenths,
} from '../../src/broker/layout.ts'

const buffer = format({ limit: 20, rows: 8, thread: 3, nonce: [-1, -2], moveCost: 200 })

describe('layout', () => {
  test('read() understands what format() wrote', () => {
    const ledger = read(buffer)!
    expect(ledger).toMatchObject({ room: 20, rows: 8 })
    expect(ledger.words.byteLength).toBe(sizeOf(20, 8))
    expect(ledger.words[header.thread]).toBe(3)
  })

  test('read() understands it in a context of node:vm, too', () => {
    const elsewhere = runInNewContext('new SharedArrayBuffer(length)', {
      length: buffer.byteLength,
    }) as SharedArrayBuffer
    new Int32Array(elsewhere).set(new Int32Array(buffer))
    expect(elsewhere).not.toBeInstanceOf(SharedArrayBuffer)
    expect(read(elsewhere)).toBeDefined()
  })

  test('read() refuses what it does not understand', () => {
    expect(read(undefined)).toBeUndefined()
    expect(read(new SharedArrayBuffer(4))).toBeUndefined()
    expect(read(new SharedArrayBuffer(sizeOf(20, 8)))).toBeUndefined()
    const other = format({ limit: 20, rows: 8, thread: 3, nonce: [1, 2], moveCost: 200 })
    new Int32Array(other)[header.version]!++
    expect(read(other)).toBeUndefined()
    const shorter = format({ limit: 20, rows: 8, thread: 3, nonce: [1, 2], moveCost: 200 })
    new Int32Array(shorter)[header.rows]!++
    expect(read(shorter)).toBeUndefined()
  })

  test('a word keeps state, member and generation apart, at their limits too', () => {
    for (const [s, member, generation] of [
      [state.reaping, 1023, 2 ** 19 - 1],
      [state.held, 0, 2 ** 19 - 1],
      [state.free, 0, 0],
      [state.granted, 512, 2 ** 18],
    ] as const) {
      const word = pack(s, member, generation)
      expect(word).toBe(word | 0)
      expect([stateOf(word), memberOf(word), generationOf(word)]).toEqual([s, member, generation])
    }
    expect(generationOf(pack(state.free, 0, 2 ** 19))).toBe(0)
  })

  test('a tag is short, and tells slots and generations apart', () => {
    const ledger = read(buffer)!
    const longest = tagOf(ledger, 65_535, pack(state.held, 1023, 2 ** 19 - 1))
    expect(longest.length).toBeLessThanOrEqual(24)
    expect(longest).toMatch(/^[\w-]+$/)
    const tags = new Set<string>()
    for (let slot = 0; slot < 20; slot++) {
      for (let generation = 0; generation < 20; generation++)
        tags.add(tagOf(ledger, slot, pack(state.held, 1, generation)))
    }
    expect(tags.size).toBe(400)
    expect(tagOf(ledger, 1, pack(state.held, 1, 5))).toBe(tagOf(ledger, 1, pack(state.limbo, 0, 5)))
  })

  test('elapsed() sees through the wrap of the clock', () => {
    for (const start of [0, 2 ** 31 / 10 - 1, 2 ** 32 / 10 - 1, 1e12 + 0.3]) {
      for (const ms of [0, 0.1, 5, 1_000, 86_400_000, 4 * 86_400_000]) {
        expect(elapsed(tenths(start), tenths(start + ms))).toBeCloseTo(ms, 0)
      }
    }
    // Clocks read a little apart.
    expect(elapsed(tenths(10), tenths(9))).toBe(0)
  })
})
