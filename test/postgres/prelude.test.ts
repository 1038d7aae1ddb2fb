import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Prelude } from '../../src/postgres/prelude.ts'
import { message } from '../support/scripted-server.ts'

const types = (bytes: Buffer): string => {
  let text = ''
  for (let at = 0; at < bytes.length; at += 1 + bytes.readUInt32BE(at + 1)) text += String.fromCharCode(bytes[at] ?? 0)
  return text
}

const extended = Buffer.concat([message('P', '\0select 1\0\0\0'), message('B'), message('E'), message('S')])
const simple = message('Q', 'select 1; select 2\0')
const begun = [message('1'), message('2'), message('C', 'BEGIN\0')]
const answer = [message('1'), message('2'), message('D', '\0\0'), message('C', 'SELECT 1\0'), message('Z', 'T')]
const refused = message('E', 'SERROR\0VERROR\0C0A000\0Mnot here\0\0')
const beside = [message('N', 'SNOTICE\0\0'), message('S', 'a\0b\0'), message('A', '\0\0\0\x01x\0\0')]

/** What comes of an answer that arrives in these pieces. */
function received(prelude: Prelude, pieces: readonly Buffer[]): { passed: Buffer; sent: Buffer } {
  const passed: Buffer[] = []
  const sent: Buffer[] = []
  for (const piece of pieces) {
    if (!prelude.pending) {
      passed.push(piece)
      continue
    }
    const accepted = prelude.accept(piece)
    passed.push(accepted.passed)
    if (accepted.send) sent.push(accepted.send)
  }
  return { passed: Buffer.concat(passed), sent: Buffer.concat(sent) }
}

function cut(bytes: Buffer, at: readonly number[]): Buffer[] {
  const places = [0, ...at.map((place) => place % bytes.length).toSorted((a, b) => a - b), bytes.length]
  return places.slice(1).map((end, i) => bytes.subarray(places[i], end))
}

/** Some of these between any two others. */
const mixed = (messages: readonly Buffer[]): fc.Arbitrary<{ all: Buffer; beside: Buffer }> =>
  fc.array(fc.nat(beside.length), { minLength: messages.length, maxLength: messages.length }).map((picks) => {
    const between = picks.map((pick) => beside[pick] ?? Buffer.alloc(0))
    return { all: Buffer.concat(messages.flatMap((one, i) => [between[i]!, one])), beside: Buffer.concat(between) }
  })

const places = fc.array(fc.nat(300), { maxLength: 12 })

describe('Prelude', () => {
  test('before() puts the statement before a query of the extended protocol, once', () => {
    const prelude = new Prelude('BEGIN READ ONLY')
    expect(prelude.unsent).toBe(true)
    const written = prelude.before(extended)
    expect(types(written)).toBe('PBEPBES')
    expect(written.includes('\0BEGIN READ ONLY\0')).toBe(true)
    expect(written.subarray(-extended.length)).toEqual(extended)
    expect(prelude.unsent).toBe(false)
    expect(prelude.before(extended)).toBe(extended)
  })

  test('before() holds a simple query back until the statement has been answered', () => {
    const prelude = new Prelude('BEGIN')
    expect(types(prelude.before(simple))).toBe('PBES')
    expect(prelude.before(message('d', 'more'))).toHaveLength(0)
    const { passed, sent } = received(prelude, [...begun, message('Z', 'T')])
    expect(passed).toHaveLength(0)
    expect(types(sent)).toBe('Qd')
    expect(prelude.before(simple)).toBe(simple)
  })

  test('accept() takes out its own answer, however it is cut, and nothing else', () => {
    const property = fc.property(mixed(begun), places, ({ all, beside: others }, at) => {
      const prelude = new Prelude('BEGIN')
      prelude.before(extended)
      const { passed, sent } = received(prelude, cut(Buffer.concat([all, ...answer]), at))
      expect(passed).toEqual(Buffer.concat([others, ...answer]))
      expect(sent).toHaveLength(0)
      expect(prelude.pending).toBe(false)
      expect(prelude.failure).toBeUndefined()
    })
    fc.assert(property, { numRuns: 2_000 })
  })

  test('accept() hands a refusal on as the answer to the query, however it is cut', () => {
    const query = fc.constantFrom(extended, simple)
    const property = fc.property(query, mixed([refused]), places, (sent, { all }, at) => {
      const prelude = new Prelude('BEGIN')
      prelude.before(sent)
      const ready = message('Z', 'I')
      const result = received(prelude, cut(Buffer.concat([message('1'), message('2'), all, ready]), at))
      expect(result.passed).toEqual(Buffer.concat([all, ready]))
      // What was held back is never sent.
      expect(result.sent).toHaveLength(0)
      expect(prelude.failure).toMatchObject({ code: '0A000', message: 'not here' })
    })
    fc.assert(property, { numRuns: 2_000 })
  })
})
