import { systemClock } from '../clock.ts'
import type { Clock } from '../clock.ts'
import { DeadlineError, orAborted } from '../deadline.ts'
import { ConnectError } from '../errors.ts'
import { checkTarget } from './check-target.ts'
import { connectError, isRefusal, refusedParameter, serverError } from './connect-error.ts'
import { Connection } from './connection.ts'
import { dial } from './dial.ts'
import type { Address, DialStep } from './dial.ts'
import { HostOrder } from './host-order.ts'
import { LoginError, LoginGuard } from './login.ts'
import type { PostgresSettings } from './options.ts'
import { ownQuery } from './query.ts'
import { serverCheckParameters } from './server-checks.ts'
import { Share } from './share.ts'
import { TargetError } from './target.ts'
import type { TargetSessionAttrs } from './target.ts'
import type { Template } from './template.ts'
import { Wire } from './wire.ts'

/** What has not been done in time. */
const dialing: Readonly<Record<DialStep, string>> = {
  name: 'the name of the server was not looked up in time',
  tcp: 'the TCP connection was not made in time',
  tls: 'the server did not complete the TLS handshake in time',
}
const longestName = 63
const defaultConnectTimeoutMs = 10_000

/** The tag at the end, where nothing cuts it off: it is how the session is found again. */
export function applicationName(name: string, tag: string): string {
  // The server replaces what is not ASCII by something longer.
  const plain = name.replaceAll(/[^\x20-\x7E]/g, '?')
  return `${plain.slice(0, Math.max(0, longestName - tag.length - 1))} ${tag}`
}

type Target = Exclude<TargetSessionAttrs, 'prefer-standby'>

/** What one attempt to connect to one server needs to know. */
interface Attempt {
  readonly address: Address
  readonly tag: string
  readonly password: string
  readonly target: Target
  readonly signal: AbortSignal
}

/** Opens connections to one server, or to the first of several that will do. Remembers what they refuse. */
export class Opener {
  readonly settings: PostgresSettings
  readonly #template: Template
  readonly #clock: Clock
  readonly #order: HostOrder
  readonly #addresses = new WeakMap<Connection, Address>()
  /** Of several servers, those that may have a session of this tag. */
  readonly #whereabouts = new Map<string, Set<Address>>()
  #serverChecks: boolean

  constructor(settings: PostgresSettings, template: Template) {
    this.settings = settings
    this.#template = template
    this.#clock = settings.pool.clock ?? systemClock
    this.#order = new HostOrder(settings.addresses)
    this.#serverChecks = settings.serverChecks !== false
  }

  /** Opens to this server only, whatever it is. */
  at(address: Address): Opener {
    return new Opener({ ...this.settings, address, addresses: [address], target: 'any' }, this.#template)
  }

  addressOf(connection: Connection): Address {
    return this.#addresses.get(connection) ?? this.settings.address
  }

  /** The servers that may have a session of this tag: all of them, where it is not known. */
  whereabouts(tag: string): readonly Address[] {
    return [...(this.#whereabouts.get(tag) ?? this.settings.addresses)]
  }

  /** The session of this tag has ended, for sure. */
  forget(tag: string): void {
    this.#whereabouts.delete(tag)
  }

  /** Resolves with a connection that is ready; rejects with a `ConnectError`, at the latest when the signal aborts. */
  async open(tag: string, signal: AbortSignal): Promise<Connection> {
    const { settings } = this
    const startedAt = this.#clock.now()
    let password: string
    try {
      signal.throwIfAborted()
      password = await this.#password(signal)
    } catch (error) {
      const cause = timedOut(error, signal) ? late('password() did not settle in time', error) : error
      throw connectError(settings, cause, false)
    }
    const dueAt = startedAt + (settings.pool.connectTimeoutMs ?? defaultConnectTimeoutMs)
    const places = this.#places(startedAt)
    const failures: ConnectError[] = []
    for (const [i, { address, target }] of places.entries()) {
      // What is left is shared out among those that are left: a deaf one must not take it all.
      const shareMs = (dueAt - this.#clock.now()) / (places.length - i)
      const share = i === places.length - 1 ? undefined : new Share(this.#clock, shareMs, signal)
      try {
        const connection = await this.#server({ address, target, tag, password, signal: share?.signal ?? signal })
        this.#order.served(address)
        this.#addresses.set(connection, address)
        return connection
      } catch (error) {
        const failure = error instanceof ConnectError ? error : connectError(settings, error, false, address)
        failures.push(failure)
        // A server that refuses who we are, or is of another kind, is there.
        if (failure.retryable && !(failure.cause instanceof TargetError)) this.#order.failed(address, this.#clock.now())
        if (!failure.retryable || signal.aborted) break
      } finally {
        share?.end()
      }
    }
    throw this.#summary(failures)
  }

  /** Whom to try, and what they have to be. */
  #places(now: number): readonly { address: Address; target: Target }[] {
    const { target } = this.settings
    const addresses = this.#order.at(now)
    const wanted: readonly Target[] = target === 'prefer-standby' ? ['standby', 'any'] : [target]
    // A single server is what it is.
    if (target === 'prefer-standby' && addresses.length === 1)
      return addresses.map((address) => ({ address, target: 'any' }))
    return wanted.flatMap((one) => addresses.map((address) => ({ address, target: one })))
  }

  /** One failure as it is; of several what each server said. */
  #summary(failures: readonly ConnectError[]): ConnectError {
    const last = failures.at(-1)
    if (!last) throw new Error('bug: nothing was tried')
    if (failures.length === 1) return last
    const details = {
      retryable: last.retryable,
      doubtful: failures.some(({ doubtful }) => doubtful),
      full: failures.some(({ full }) => full),
    }
    // The server's own word on what no other server would take either.
    if (!last.retryable) return new ConnectError(last.message, { ...details, cause: last.cause })
    const messages = failures.map(({ message }) => message).join('; ')
    const cause = new AggregateError(failures.map((failure) => failure.cause))
    return new ConnectError(`No server of ${this.settings.serverName} will do: ${messages}`, { ...details, cause })
  }

  async #password(signal: AbortSignal): Promise<string> {
    const { password } = this.settings
    if (typeof password === 'string') return password
    const given = await orAborted<unknown>(Promise.resolve(password()), signal)
    if (typeof given !== 'string') throw new TypeError('password() must return a string')
    if (given.includes('\0')) throw new TypeError('password() must return a string without a zero byte')
    return given
  }

  /** With the server checks, and without where they are refused. */
  async #server(attempt: Attempt): Promise<Connection> {
    const checked = this.#serverChecks
    try {
      return await this.#attempt(attempt, checked)
    } catch (error) {
      if (!checked || this.settings.serverChecks === true) throw error
      if (!(error instanceof ConnectError) || error.doubtful || !isRefusal(error.cause)) throw error
      if (refusedParameter(error.cause, this.settings.connection)) throw error
    }
    const connection = await this.#attempt(attempt, false)
    if (this.#serverChecks) {
      this.#serverChecks = false
      process.emitWarning(
        `${this.settings.serverName} refuses client_connection_check_interval and tcp_keepalives: it will not notice dead clients by itself (serverChecks: false silences this)`,
        'MillpondWarning',
      )
    }
    return connection
  }

  async #attempt(attempt: Attempt, serverChecks: boolean): Promise<Connection> {
    const { address, password, signal } = attempt
    let wire: Wire | undefined
    let step = dialing.tcp
    try {
      const socket = await dial(address, signal, (dialed) => {
        step = dialing[dialed]
      })
      this.#mayBeAt(attempt)
      const guard = new LoginGuard({ hasPassword: password !== '' })
      wire = new Wire(socket, guard)
      try {
        return await this.#login(wire, attempt, serverChecks)
      } finally {
        const heard = guard.done ? 'did not answer a query' : 'broke off in the middle of the login'
        step = `the server ${guard.heard ? heard : 'accepted the connection, but said nothing'} in time`
      }
    } catch (error) {
      const released = wire === undefined || (await leave(wire, error, signal))
      if (released) this.#isNotAt(attempt)
      throw connectError(this.settings, timedOut(error, signal) ? late(step, error) : error, !released, address)
    }
  }

  #mayBeAt({ tag, address }: Attempt): void {
    if (this.settings.addresses.length === 1) return
    const places = this.#whereabouts.get(tag) ?? new Set()
    this.#whereabouts.set(tag, places.add(address))
  }

  #isNotAt({ tag, address }: Attempt): void {
    const places = this.#whereabouts.get(tag)
    places?.delete(address)
    if (places?.size === 0) this.#whereabouts.delete(tag)
  }

  async #login(
    wire: Wire,
    { address, tag, password, target, signal }: Attempt,
    serverChecks: boolean,
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
    const ready = ownQuery('')
    const died = new Promise<never>((_, reject) => {
      const die = (cause: unknown): void => {
        const { fatal } = wire.frames
        const error = fatal ? serverError(fatal) : cause
        wire.cut(error instanceof Error ? error : new Error(String(error)))
        reject(error)
      }
      wire.listen({
        arrived: () => {
          if (wire.frames.fatal) die(undefined)
        },
        wrote: () => undefined,
        mending: () => undefined,
        died: die,
      })
    })
    inner.handler(ready)
    await orAborted(Promise.race([ready, died]), signal)
    const opened = new Connection(wire, inner, address, tag)
    await checkTarget(opened, target, signal)
    return opened
  }
}

/** The signal's own reason tells how long it was, not what was under way. */
function timedOut(error: unknown, signal: AbortSignal): boolean {
  if (!signal.aborted || error !== signal.reason) return false
  return error instanceof DeadlineError || (error instanceof Error && error.name === 'TimeoutError')
}

function late(what: string, cause: unknown): Error {
  return new Error(what, { cause })
}

/** After a failure: whether the server let the session go before the deadline. */
async function leave(wire: Wire, reason: unknown, signal: AbortSignal): Promise<boolean> {
  const error = new Error('the connection could not be opened')
  if (reason instanceof LoginError && reason.stranger) {
    wire.kill(error)
    return true
  }
  wire.hangUp(error)
  try {
    await orAborted(wire.released, signal)
    return true
  } catch {
    wire.kill(error)
    return wire.peerEnded
  }
}
