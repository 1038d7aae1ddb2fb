import { inspect } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ConnectError } from '../../src/errors.ts'
import { LoginError, LoginGuard } from '../../src/postgres/login.ts'
import type { PostgresPoolOptions } from '../../src/postgres/options.ts'
import { DriverUnderTest, rejection } from '../support/connection.ts'
import {
  authenticated,
  authentication,
  challenge,
  fatal,
  keyAndReady,
  message,
  offer,
  scriptedServer,
} from '../support/scripted-server.ts'
import type { Line } from '../support/scripted-server.ts'

const secret = 'hush-hush'

/** What ends a process that nobody watches. */
let unhandled: unknown[] = []
const note = (reason: unknown): void => void unhandled.push(reason)
beforeEach(() => {
  unhandled = []
  process.on('unhandledRejection', note)
})
afterEach(async () => {
  await new Promise((resolve) => {
    setImmediate(resolve)
  })
  process.off('unhandledRejection', note)
  expect(unhandled).toEqual([])
})

/** Tries to log in at a server that keeps to a script. */
async function logIn(
  script: readonly Line[],
  options: PostgresPoolOptions = {},
  timeoutMs = 2_000,
): Promise<{ error: ConnectError; tookMs: number; sockets: number }> {
  await using server = await scriptedServer(...script)
  const url = `postgres://ann:${secret}@127.0.0.1:${server.port}/shop`
  const startedAt = performance.now()
  const error = await rejection(new DriverUnderTest(url, options).open('mptest-login', timeoutMs))
  if (!(error instanceof ConnectError)) throw error
  expect(`${error.message} ${error.stack} ${inspect(error, { depth: 9, showHidden: true })}`).not.toContain(secret)
  return { error, tookMs: performance.now() - startedAt, sockets: server.sockets }
}

describe('a login that goes wrong', () => {
  test.each<[string, readonly Line[], RegExp]>([
    ['SASL without a mechanism', [authentication(10)], /offers no way to log in/],
    ['SASL with a mechanism that is not supported', [authentication(10, 'SCRAM-SHA-512\0\0')], /offers no way/],
    ['a challenge of nothing', [offer, authentication(11)], /broken challenge/],
    ['a challenge without salt', [offer, authentication(11, 'r=nonce,i=4096')], /broken challenge/],
    ['a challenge without a count', [offer, authentication(11, 'r=nonce,s=c2FsdA==')], /broken challenge/],
    ['a challenge with a count of 0', [offer, authentication(11, 'r=nonce,s=c2FsdA==,i=0')], /broken challenge/],
    ['a challenge with a count of words', [offer, authentication(11, 'r=n,s=c2FsdA==,i=many')], /broken challenge/],
    ['a challenge with a count without end', [offer, authentication(11, 'r=n,s=c2FsdA==,i=2147483647')], /stop this/],
    ['a challenge of garbage', [offer, authentication(11, '\xff\xfe\0\0')], /broken challenge/],
    ['a challenge that was not asked for', [challenge], /does not follow/],
    ['a proof that was not asked for', [authentication(12, 'v=x')], /does not follow/],
    ['two challenges', [offer, challenge, challenge], /does not follow/],
    ['no proof', [offer, challenge, authenticated], /did not prove that it knows the password/],
    ['no challenge and no proof', [offer, authenticated], /did not prove that it knows the password/],
    ['a wrong proof', [offer, challenge, authentication(12, 'v=d3Jvbmc=')], /did not prove/],
    ['an MD5 salt that is too short', [authentication(5, 'ab')], /a salt that is none/],
    ['authentication of no kind', [message('R', '\0')], /too short/],
    ['Kerberos', [authentication(2)], /authentication \(2\) that is not supported/],
    ['a key that is too short', [Buffer.concat([authenticated, message('K', 'abc')])], /key that is too short/],
    ['ready before the login', [keyAndReady], /ready before the login/],
    ['an unknown status', [Buffer.concat([authenticated, message('Z', '')])], /status that is none/],
    ['a row in the login', [message('D', '\0\0')], /not a PostgreSQL server/],
    ['a message longer than any', [Buffer.from('R\x7f\xff\xff\xff', 'latin1')], /not a PostgreSQL server/],
    ['a message shorter than any', [Buffer.from('R\0\0\0\x02', 'latin1')], /not a PostgreSQL server/],
    ['HTTP', [Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')], /not a PostgreSQL server/],
    ['bytes', [Buffer.from([0, 1, 2, 3, 255])], /not a PostgreSQL server/],
    ['a version that is not ours', [message('v', '\0\0\0\0\0\0\0\0')], /not supported/],
  ])('Opener.open() rejects at once, and the process lives, where the server sends %s', async (_, script, words) => {
    const { error, tookMs, sockets } = await logIn(script)
    expect(error.message).toMatch(words)
    expect(error.doubtful).toBe(false)
    expect(tookMs).toBeLessThan(1_500)
    expect(sockets).toBe(1)
  })

  test.each<[string, readonly Buffer[]]>([
    ['at the start', [Buffer.alloc(0)]],
    ['after the offer', [offer]],
    ['after the challenge', [offer, challenge]],
    ['in the middle of a message', [offer, challenge.subarray(0, 7)]],
    ['after the login', [authenticated]],
    ['before it is ready', [Buffer.concat([authenticated, message('K', Buffer.alloc(8, 1))])]],
    ['without an answer', [Buffer.concat([authenticated, keyAndReady]), Buffer.alloc(0)]],
  ])('Opener.open() tells at once of a server that closes %s', async (_, said) => {
    const last = said.at(-1) as Buffer
    const { error, tookMs } = await logIn([...said.slice(0, -1), (socket) => socket.end(last)])
    expect(error).toMatchObject({ retryable: true, doubtful: false })
    expect(error.message).toContain('the server closed the connection')
    expect(tookMs).toBeLessThan(1_500)
  })

  test.each<[string, readonly Line[], RegExp]>([
    ['says nothing at all', [], /accepted the connection, but said nothing in time/],
    ['is silent after the offer', [offer], /broke off in the middle of the login in time/],
    ['is silent after the login', [authenticated], /broke off in the middle of the login in time/],
    ['never answers a query', [Buffer.concat([authenticated, keyAndReady])], /did not answer a query in time/],
  ])('Opener.open() leaves a server that %s at the deadline', async (_, script, words) => {
    const { error, tookMs } = await logIn(script, {}, 150)
    expect(error.message).toMatch(words)
    expect(error.retryable).toBe(true)
    expect(tookMs).toBeGreaterThan(140)
    expect(tookMs).toBeLessThan(1_000)
  })

  test('Opener.open() passes a fatal error on, also one that is cut into pieces', async () => {
    const whole = fatal('53300', 'sorry, too many clients already')
    const { error } = await logIn([
      (socket) => {
        socket.write(whole.subarray(0, 3))
        setImmediate(() => socket.write(whole.subarray(3, 20), () => socket.end(whole.subarray(20))))
      },
    ])
    expect(error).toMatchObject({ retryable: true, doubtful: false, full: true, cause: { code: '53300' } })
  })

  test('Opener.open() asks for a password that is not set, for good', async () => {
    for (const asks of [offer, authentication(3), authentication(5, 'salt')]) {
      const { error } = await logIn([asks], { password: '' })
      expect(error.message).toContain('the server asks for a password, and none is set')
      expect(error.retryable).toBe(false)
    }
  })

  test('Opener.open() does not try a wrong proof or a missing one again', async () => {
    expect((await logIn([offer, challenge, authentication(12, 'v=d3Jvbmc=')])).error.retryable).toBe(false)
    expect((await logIn([offer, challenge, authenticated])).error.retryable).toBe(false)
  })

  test('a session ends that is asked for authentication in its middle', async () => {
    await using server = await scriptedServer(
      Buffer.concat([authenticated, keyAndReady]),
      Buffer.concat([message('I'), message('Z', 'I')]),
      authentication(11, 'broken'),
    )
    const url = `postgres://ann:${secret}@127.0.0.1:${server.port}/shop`
    const under = new DriverUnderTest(url, { fetch_types: false })
    const connection = await under.open()
    const error = await rejection(connection.ask('select 1'))
    expect(error.message).toContain('authentication in the middle of a session')
    expect(connection.isLost).toBe(true)
    await under.close(connection)
  })
})

describe('LoginGuard', () => {
  const login = Buffer.concat([
    authenticated,
    message('S', 'a\0b\0'),
    message('N', 'SNOTICE\0\0'),
    keyAndReady,
    message('D', 'what comes later is not its concern'),
  ])

  test('LoginGuard.accept() passes whole messages on, however the stream is cut', () => {
    for (let cut = 0; cut <= login.length; cut++) {
      for (const size of [1, 7, login.length]) {
        const guard = new LoginGuard({ hasPassword: true })
        const passed: Buffer[] = [guard.accept(login.subarray(0, cut))]
        for (let at = cut; at < login.length; at += size) passed.push(guard.accept(login.subarray(at, at + size)))
        expect(guard.done).toBe(true)
        expect(Buffer.concat(passed).equals(login)).toBe(true)
      }
    }
  })

  test('LoginGuard.accept() lets nothing of a message pass that it refuses', () => {
    const guard = new LoginGuard({ hasPassword: true })
    expect(guard.accept(Buffer.concat([offer, challenge.subarray(0, 9)])).equals(offer)).toBe(true)
    expect(() => guard.accept(authentication(11, 'r=n').subarray(9))).not.toThrow()
    expect(() => new LoginGuard({ hasPassword: true }).accept(challenge)).toThrow(LoginError)
  })

  test('LoginGuard.accept() takes a trusting server’s word, and the whole of SCRAM', () => {
    const trusting = new LoginGuard({ hasPassword: false })
    trusting.accept(Buffer.concat([authenticated, keyAndReady]))
    expect(trusting.done).toBe(true)
    const guard = new LoginGuard({ hasPassword: true })
    for (const step of [offer, challenge, authentication(12, 'v=x'), authenticated, keyAndReady]) guard.accept(step)
    expect(guard.done).toBe(true)
  })

  test('LoginGuard.accept() survives whatever comes', () => {
    const seed = Number(process.env['SEED'] ?? Date.now() % 1e9)
    console.log(`seed ${seed}`)
    let state = seed
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff
      return (state >>> 8) % below
    }
    const parts = [offer, challenge, authentication(12, 'v=x'), authenticated, keyAndReady, fatal('57P03', 'no')]
    let refusals = 0
    for (let i = 0; i < 5_000; i++) {
      const guard = new LoginGuard({ hasPassword: random(2) === 0 })
      try {
        for (let j = 0; j < 6; j++) {
          const bytes = Buffer.from(parts[random(parts.length)] as Buffer)
          if (random(3) === 0) bytes[random(bytes.length)] = random(256)
          guard.accept(random(4) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes)
        }
      } catch (error) {
        refusals++
        expect(error).toBeInstanceOf(LoginError)
      }
    }
    expect(refusals).toBeGreaterThan(1_000)
  })
})
