import { describe, expect, test } from 'vitest'
import { Frames, emptyCommandComplete } from '../../src/postgres/frames.ts'

function frame(type: string, payload: Buffer | string = ''): Buffer {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'utf8') : payload
  const head = Buffer.alloc(5)
  head.write(type, 0, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

const ready = (status: string): Buffer => frame('Z', status)
const tag = (text: string): Buffer => frame('C', `${text}\0`)
const row = (text: string): Buffer => frame('D', text)
const error = (fields: Record<string, string>): Buffer =>
  frame(
    'E',
    `${Object.entries(fields)
      .map(([key, value]) => `${key}${value}\0`)
      .join('')}\0`,
  )
const keyData = Buffer.alloc(8)
keyData.writeUInt32BE(4242, 0)
keyData.writeUInt32BE(0xfedcba98, 4)

const startup = Buffer.concat([Buffer.from([0, 0, 0, 13, 0, 3, 0, 0]), Buffer.from('user\0')])
const query = frame('Q', 'select 1\0')
const sync = frame('S')

/** What postgres.js would be shown of a stream that comes in the chunks given. */
function forward(frames: Frames, chunks: readonly Buffer[]): Buffer {
  const shown: Buffer[] = []
  for (const chunk of chunks) {
    let from = 0
    for (;;) {
      const at = frames.received(chunk, from)
      shown.push(chunk.subarray(from, at))
      if (at === chunk.length) break
      shown.push(emptyCommandComplete)
      from = at
    }
  }
  return Buffer.concat(shown)
}

/** Every way of cutting the bytes in two, each byte for itself, and as one. */
function* cuts(bytes: Buffer): Generator<readonly Buffer[]> {
  yield [bytes]
  yield Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))
  for (let i = 1; i < bytes.length; i++) yield [bytes.subarray(0, i), bytes.subarray(i)]
}

/** A session that is ready. */
function opened(): Frames {
  const frames = new Frames()
  frames.sent(startup)
  forward(frames, [frame('R', Buffer.alloc(4)), frame('K', keyData), ready('I')])
  return frames
}

describe('Frames', () => {
  test('Frames is not quiet before the startup packet has been answered', () => {
    for (const chunks of cuts(startup)) {
      const frames = new Frames()
      for (const chunk of chunks) frames.sent(chunk)
      expect(frames.quiet).toBe(false)
      expect(frames.status).toBe('')
      forward(frames, [ready('I')])
      expect(frames.quiet).toBe(true)
      expect(frames.status).toBe('I')
    }
  })

  test('Frames reads pid and secret however the stream is cut, unsigned', () => {
    const bytes = Buffer.concat([frame('R', Buffer.alloc(4)), frame('S', 'a\0b\0'), frame('K', keyData), ready('I')])
    for (const chunks of cuts(bytes)) {
      const frames = new Frames()
      frames.sent(startup)
      forward(frames, chunks)
      expect(frames).toMatchObject({ pid: 4242, secret: 0xfedcba98, status: 'I', quiet: true })
    }
  })

  test('Frames.status is the byte of the last ReadyForQuery and never of row data', () => {
    // A row whose bytes look like a ReadyForQuery in a failed transaction.
    const bytes = Buffer.concat([row(ready('E').toString('latin1')), tag('SELECT 1'), ready('T')])
    for (const chunks of cuts(bytes)) {
      const frames = opened()
      frames.sent(query)
      forward(frames, chunks)
      expect(frames.status).toBe('T')
      expect(frames.quiet).toBe(true)
    }
  })

  test('Frames.takeTags() gives the tags without their counts, once', () => {
    const bytes = Buffer.concat([tag('INSERT 0 12'), tag('CREATE TABLE'), tag('SELECT 3'), tag('SET'), ready('I')])
    for (const chunks of cuts(bytes)) {
      const frames = opened()
      forward(frames, chunks)
      expect([...frames.takeTags()]).toEqual(['INSERT', 'CREATE TABLE', 'SELECT', 'SET'])
      expect(frames.takeTags().size).toBe(0)
    }
  })

  test('Frames.fatal keeps the error that ends a session, and no other', () => {
    const minor = error({ S: 'ERROR', V: 'ERROR', C: '42601', M: 'syntax error' })
    const fatal = error({ S: 'FATAL', V: 'FATAL', C: '57P01', M: 'terminating connection, ünicode' })
    for (const chunks of cuts(Buffer.concat([minor, ready('I'), fatal]))) {
      const frames = opened()
      forward(frames, chunks)
      expect(frames.fatal).toMatchObject({
        severity: 'FATAL',
        code: '57P01',
        message: 'terminating connection, ünicode',
      })
    }
    const frames = opened()
    forward(frames, [minor])
    expect(frames.fatal).toBeUndefined()
  })

  test('Frames shows an empty CommandComplete between an error after rows and its ReadyForQuery', () => {
    const before = Buffer.concat([row('a'), row('b'), error({ S: 'ERROR', C: '22012' })])
    const bytes = Buffer.concat([before, ready('I')])
    for (const chunks of cuts(bytes)) {
      const shown = forward(opened(), chunks)
      expect(shown).toEqual(Buffer.concat([before, emptyCommandComplete, ready('I')]))
    }
  })

  test('Frames adds nothing to an error without rows, nor to rows that were completed', () => {
    const bytes = Buffer.concat([row('a'), tag('SELECT 1'), error({ S: 'ERROR', C: '22012' }), ready('E')])
    for (const chunks of cuts(bytes)) expect(forward(opened(), chunks)).toEqual(bytes)
  })

  test('Frames.quiet waits for a Sync after each step of the extended protocol', () => {
    const frames = opened()
    for (const chunks of cuts(Buffer.concat([frame('P', 'x'), frame('D', 'S\0'), frame('H')]))) {
      for (const chunk of chunks) frames.sent(chunk)
      expect(frames.quiet).toBe(false)
      expect(frames.midway).toBe(true)
    }
    frames.sent(sync)
    expect(frames.midway).toBe(false)
    expect(frames.quiet).toBe(false)
    forward(frames, [ready('I')])
    expect(frames.quiet).toBe(true)
  })

  test('Frames.quiet counts one ReadyForQuery for each Sync and Query', () => {
    const frames = opened()
    frames.sent(Buffer.concat([query, sync]))
    forward(frames, [tag('SELECT 1'), ready('I')])
    expect(frames.quiet).toBe(false)
    forward(frames, [ready('I')])
    expect(frames.quiet).toBe(true)
  })

  test('Frames.copy lasts from the response that opens it to the end of the data, or of the query', () => {
    const frames = opened()
    frames.sent(query)
    forward(frames, [frame('H', Buffer.alloc(3)), frame('d', 'data')])
    expect(frames.copy).toBe('out')
    forward(frames, [frame('c')])
    expect(frames.copy).toBeUndefined()
    forward(frames, [tag('COPY 1'), ready('I')])
    frames.sent(query)
    forward(frames, [frame('G', Buffer.alloc(3))])
    expect(frames.copy).toBe('in')
    forward(frames, [error({ S: 'ERROR', C: '57014' }), ready('I')])
    expect(frames.copy).toBeUndefined()
  })

  test('Frames.suspended lasts from a portion of a cursor until more is asked for, or it is closed', () => {
    for (const next of [frame('E', '\0\0\0\0\0'), frame('C', 'P\0')]) {
      const frames = opened()
      frames.sent(frame('E', '\0\0\0\0\x01'))
      forward(frames, [row('a'), frame('s')])
      expect(frames.suspended).toBe(true)
      frames.sent(next)
      expect(frames.suspended).toBe(false)
      expect(frames.quiet).toBe(false)
    }
  })
})
