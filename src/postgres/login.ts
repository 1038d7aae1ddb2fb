import { headerSize } from './framer.ts'

interface Meaning {
  /** Trying again cannot help. */
  final?: boolean
  /** It is no PostgreSQL server, so it has no session that it could count. */
  stranger?: boolean
  /** postgres.js's word for it. */
  code?: 'SASL_SIGNATURE_MISMATCH' | 'AUTH_TYPE_NOT_IMPLEMENTED'
}

/** What the server says in a login cannot be, or is not supported. */
export class LoginError extends Error {
  override readonly name = 'LoginError'
  readonly final: boolean
  readonly stranger: boolean
  readonly code: Meaning['code']

  constructor(message: string, { final = false, stranger = false, code }: Meaning = {}) {
    super(message)
    this.final = final
    this.stranger = stranger
    this.code = code
  }
}

/** A wrong proof, or none. */
export function notProven(): LoginError {
  const code = 'SASL_SIGNATURE_MISMATCH'
  return new LoginError('the server did not prove that it knows the password', { final: true, code })
}

const kind = { authentication: 82, parameter: 83, key: 75, ready: 90, error: 69, notice: 78, version: 118 } as const
const kinds: ReadonlySet<number> = new Set(Object.values(kind))

/** No message of a login is longer; errors and notices may have something to tell. */
const longest = 2_000
const longestText = 30_000
/** Each costs some microseconds on the event loop; PostgreSQL's default is 4,096. */
const mostIterations = 1_000_000

/** The steps of SCRAM-SHA-256, and what else postgres.js can do. */
const auth = { ok: 0, password: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const

/**
 * Stands before postgres.js until the session is ready, and lets whole messages through that it can digest. postgres.js
 * reads those of a login without a look: a broken one ends the process, as an unhandled rejection, or keeps it busy for
 * as long as the server wants; and it takes a server's word for who it is if the server leaves the proof out.
 *
 * State: before → sasl → continued → proven → authenticated → ready; without SASL before → asked → authenticated
 */
export class LoginGuard {
  readonly #hasPassword: boolean
  #state: 'before' | 'asked' | 'sasl' | 'continued' | 'proven' | 'authenticated' | 'ready' = 'before'
  #rest: Buffer = Buffer.alloc(0)
  /** Something came from the server. */
  heard = false

  constructor({ hasPassword }: { hasPassword: boolean }) {
    this.#hasPassword = hasPassword
  }

  /** The session is ready: there is nothing to guard any more. */
  get done(): boolean {
    return this.#state === 'ready'
  }

  /** What of the stream can be passed on now. Throws a `LoginError` at the first message that cannot. */
  accept(chunk: Buffer): Buffer {
    this.heard = true
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    let at = 0
    while (at < bytes.length && !this.done) {
      const type = bytes[at] ?? 0
      if (!kinds.has(type)) throw noServer()
      if (bytes.length - at < headerSize) break
      const length = bytes.readUInt32BE(at + 1)
      const most = type === kind.error || type === kind.notice ? longestText : longest
      if (length < 4 || length > most) throw noServer()
      if (bytes.length - at < length + 1) break
      this.#look(type, bytes.subarray(at + headerSize, at + length + 1))
      at += length + 1
    }
    const passed = this.done ? bytes.length : at
    this.#rest = bytes.subarray(passed)
    return bytes.subarray(0, passed)
  }

  #look(type: number, payload: Buffer): void {
    switch (type) {
      case kind.authentication:
        return this.#authentication(payload)
      case kind.key:
        if (payload.length < 8) throw new LoginError('the server sent a key that is too short')
        return
      case kind.ready:
        if (this.#state !== 'authenticated') throw new LoginError('the server was ready before the login was')
        if (payload.length !== 1) throw new LoginError('the server sent a status that is none')
        this.#state = 'ready'
    }
  }

  #authentication(payload: Buffer): void {
    if (payload.length < 4) throw new LoginError('the server sent a request for authentication that is too short')
    const method = payload.readUInt32BE(0)
    const details = payload.subarray(4)
    const state = this.#state
    if (method === auth.ok && (state === 'before' || state === 'asked' || state === 'proven')) {
      this.#state = 'authenticated'
    } else if (method === auth.ok && state !== 'authenticated') {
      throw notProven()
    } else if (state === 'before' && (method === auth.password || method === auth.md5 || method === auth.sasl)) {
      if (!this.#hasPassword) throw new LoginError('the server asks for a password, and none is set', { final: true })
      if (method === auth.md5 && details.length !== 4) throw new LoginError('the server sent a salt that is none')
      if (method === auth.sasl) checkMechanisms(details)
      this.#state = method === auth.sasl ? 'sasl' : 'asked'
    } else if (state === 'sasl' && method === auth.saslContinue) {
      checkChallenge(details)
      this.#state = 'continued'
    } else if (state === 'continued' && method === auth.saslFinal) {
      this.#state = 'proven'
    } else if (state === 'before' && method !== auth.saslContinue && method !== auth.saslFinal) {
      const code = 'AUTH_TYPE_NOT_IMPLEMENTED'
      throw new LoginError(`the server asks for an authentication (${method}) that is not supported`, {
        final: true,
        code,
      })
    } else {
      throw new LoginError(`the server sent a step of the login (${method}) that does not follow the one before`)
    }
  }
}

function noServer(): LoginError {
  return new LoginError('what answered is not a PostgreSQL server', { stranger: true })
}

function checkMechanisms(details: Buffer): void {
  const mechanisms = details.toString('latin1').split('\0').filter(Boolean)
  if (mechanisms.includes('SCRAM-SHA-256')) return
  throw new LoginError('the server offers no way to log in that is supported (SCRAM-SHA-256)', { final: true })
}

/** `r=<nonce>,s=<salt>,i=<iterations>` */
function checkChallenge(details: Buffer): void {
  const [, salt = '', iterations = ''] =
    /^r=[^,]+,s=([A-Za-z\d+/]+={0,2}),i=(\d{1,10})(?:,|$)/.exec(details.toString('latin1')) ?? []
  if (salt === '' || Number(iterations) < 1) throw new LoginError('the server sent a broken challenge for the password')
  if (Number(iterations) > mostIterations) {
    throw new LoginError(`the server wants the password hashed ${iterations} times, which would stop this process`)
  }
}
