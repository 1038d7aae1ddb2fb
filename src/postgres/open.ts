import { ConnectError } from '../errors.ts'
import { orAborted } from '../deadline.ts'
import { codeOf, connectError, serverError } from './connect-error.ts'
import { Connection } from './connection.ts'
import { dial } from './dial.ts'
import type { PostgresSettings } from './options.ts'
import type { Template } from './template.ts'
import { Wire } from './wire.ts'

/** Together they let the server notice within half a minute that a client's host is gone, and at once that a client is. */
const serverCheckParameters: Readonly<Record<string, string>> = {
  client_connection_check_interval: '2000',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
}

/** An unknown parameter, one that this server cannot have, and what poolers say of either. */
const refusals: ReadonlySet<string> = new Set(['42704', '22023', '08P01'])

/** Done, cleartext, MD5, and the three steps of SASL: what postgres.js knows. It says nothing to any other. */
const authentications: ReadonlySet<number> = new Set([0, 3, 5, 10, 11, 12])

const longestName = 63

/** The tag at the end, where nothing cuts it off: it is how the session is found again. */
export function applicationName(name: string, tag: string): string {
  // The server replaces what is not ASCII by something longer.
  const plain = name.replaceAll(/[^\x20-\x7E]/g, '?')
  return `${plain.slice(0, Math.max(0, longestName - tag.length - 1))} ${tag}`
}

/** Opens connections to one server. Remembers what that server refuses. */
export class Opener {
  readonly settings: PostgresSettings
  readonly #template: Template
  #serverChecks: boolean

  constructor(settings: PostgresSettings, template: Template) {
    this.settings = settings
    this.#template = template
    this.#serverChecks = settings.serverChecks === 'auto'
  }

  /** Resolves with a connection that is ready; rejects with a `ConnectError`, at the latest when the signal aborts. */
  async open(tag: string, signal: AbortSignal): Promise<Connection> {
    const checked = this.#serverChecks
    try {
      return await this.#attempt(tag, checked, signal)
    } catch (error) {
      const code = error instanceof ConnectError && !error.doubtful ? codeOf(error.cause) : undefined
      if (!checked || code === undefined || !refusals.has(code)) throw error
    }
    const connection = await this.#attempt(tag, false, signal)
    if (this.#serverChecks) {
      this.#serverChecks = false
      process.emitWarning(
        `${this.settings.serverName} refuses client_connection_check_interval and tcp_keepalives: it will not notice dead clients by itself (serverChecks: false silences this)`,
        'MillpondWarning',
      )
    }
    return connection
  }

  async #attempt(tag: string, serverChecks: boolean, signal: AbortSignal): Promise<Connection> {
    const { settings } = this
    let wire: Wire | undefined
    try {
      signal.throwIfAborted()
      const password = await this.#password(signal)
      const socket = await dial(settings.address, signal)
      wire = new Wire(socket)
      return await this.#login(wire, tag, password, serverChecks, signal)
    } catch (error) {
      const released = wire === undefined || (await leave(wire, signal))
      throw connectError(settings, error, !released)
    }
  }

  async #password(signal: AbortSignal): Promise<string> {
    const { password } = this.settings
    if (typeof password === 'string') return password
    const given = await orAborted<unknown>(Promise.resolve(password()), signal)
    if (typeof given !== 'string') throw new TypeError('password() must return a string')
    return given
  }

  async #login(
    wire: Wire,
    tag: string,
    password: string,
    serverChecks: boolean,
    signal: AbortSignal,
  ): Promise<Connection> {
    const { connection } = this.settings
    const inner = this.#template.open({
      wire,
      password,
      connection: {
        ...(serverChecks ? serverCheckParameters : {}),
        ...connection,
        application_name: applicationName(connection['application_name'] ?? 'millpond', tag),
      },
    })
    // postgres.js connects for the sake of a query; an empty one tells that the session is ready.
    const ready = inner.unsafe('')
    const died = new Promise<never>((_, reject) => {
      const die = (cause: unknown): void => {
        const { fatal } = wire.frames
        const error = fatal ? serverError(fatal) : cause
        wire.cut(error instanceof Error ? error : new Error(String(error)))
        reject(error)
      }
      wire.listen({
        arrived: () => {
          const { fatal, authentication } = wire.frames
          if (fatal) die(undefined)
          else if (!authentications.has(authentication)) {
            die(new Error(`the server asks for an authentication (${authentication}) that is not supported`))
          }
        },
        wrote: () => undefined,
        mending: () => undefined,
        died: die,
      })
    })
    await orAborted(Promise.race([ready, died]), signal)
    return new Connection(wire, inner, this.settings.address, tag)
  }
}

/** After a failure: whether the server let the session go before the deadline. */
async function leave(wire: Wire, signal: AbortSignal): Promise<boolean> {
  const error = new Error('the connection could not be opened')
  wire.hangUp(error)
  try {
    await orAborted(wire.released, signal)
    return true
  } catch {
    wire.kill(error)
    return wire.peerEnded
  }
}
