import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import { Frames, emptyCommandComplete, toClient } from './frames.ts'
import { notProven } from './login.ts'
import type { LoginGuard } from './login.ts'
import { message } from './messages.ts'
import type { Prelude } from './prelude.ts'
import type { RowReader } from './row-reader.ts'

/** What a wire tells its connection. */
export interface WireListener {
  /** Bytes came, and postgres.js has seen them. */
  arrived(): void
  /** postgres.js has sent something. */
  wrote(): void
  /** An answer that ended in an error after rows is about to be completed by us. */
  mending(): void
  /** The connection is of no use any more. Once, and never after `hangUp`. */
  died(cause: unknown): void
}

/** The server closed the connection and did not say why. */
export class ServerClosedError extends Error {
  override readonly name = 'ServerClosedError'
}

/**
 * What postgres.js holds for its socket: the real one stays with us.
 *
 * State
 *   live      both sides talk
 *   cut       postgres.js has been told an error; it neither hears nor reaches the socket any more
 *   released  (a promise) the server has let the session go: its FIN was seen. Rejects when the socket ended without.
 *   guard     looks at all that comes before postgres.js does, until the session is ready
 *   prelude   goes out with the next query, and is answered before it
 *   rows      reads the rows of what is under way; postgres.js sees none of them
 *   ahead     what is to be sent before postgres.js has it, all of one turn in one piece
 *   expected  what postgres.js is about to write, which was sent before
 *
 * postgres.js never sees a socket close. To it, a close is the sign to connect again, at once or with the next query:
 * on a new session that knows nothing of the old one's transaction, with answers left over from the old one. An error
 * alone fails what it has under way, and whatever it still writes afterwards goes nowhere.
 */
export class Wire extends EventEmitter {
  readonly frames: Frames = new Frames()
  prelude: Prelude | undefined
  readonly #socket: Socket
  #guard: LoginGuard | undefined
  #listener: WireListener | undefined
  #live = true
  #rows: RowReader | undefined
  #ahead: Buffer[] = []
  #expected: Buffer | undefined
  #cause: unknown
  #hungUp = false
  #drains = false
  readonly #released: Deferred<void> = deferred()
  #seen: 'nothing' | 'fin' | 'other' = 'nothing'

  constructor(socket: Socket, guard?: LoginGuard) {
    super()
    this.#socket = socket
    this.#guard = guard
    // Nobody may be waiting when it ends without a FIN.
    this.#released.promise.catch(() => undefined)
    socket.on('data', (chunk: Buffer) => this.#arrived(chunk))
    socket.on('end', () => {
      this.#end('fin', new ServerClosedError('the server closed the connection'))
    })
    socket.on('error', (error) => this.#end('other', error))
    socket.on('close', () => this.#end('other', new ServerClosedError('the connection was closed')))
  }

  // ── For the connection ─────────────────────────────────────────────────────────────────────────────────────────

  listen(listener: WireListener): void {
    this.#listener = listener
    if (!this.#live && !this.#hungUp) listener.died(this.#cause)
  }

  /** Who reads the rows of what is sent next; undefined: postgres.js. */
  readRows(reader: RowReader | undefined): void {
    this.#rows = reader
    this.frames.skipsRows = reader !== undefined
  }

  /** Sends a query, with one Sync, that postgres.js gets when all before it has been answered. */
  sendAhead(bytes: Buffer): void {
    this.frames.sentAhead()
    this.#ahead.push(bytes)
    if (this.#ahead.length === 1) queueMicrotask(this.#flush)
  }

  readonly #flush = (): void => {
    const all = this.#ahead
    this.#ahead = []
    if (this.#live) this.#socket.write(all.length === 1 ? (all[0] as Buffer) : Buffer.concat(all))
  }

  /** postgres.js is handed the query that was sent as this: it is not sent again. */
  expect(bytes: Buffer): void {
    this.frames.takeAhead()
    this.#expected = bytes
  }

  /** Whether postgres.js has not written what it was to write. */
  get expects(): boolean {
    return this.#expected !== undefined
  }

  get live(): boolean {
    return this.#live
  }

  /** The server has let the session go. */
  get peerEnded(): boolean {
    return this.#seen === 'fin'
  }

  /** Resolves when the server has let the session go; rejects if the socket ended without that being seen. */
  get released(): Promise<void> {
    return this.#released.promise
  }

  /** Whether it reads on although nobody takes what comes: the rest of a COPY that its reader has left. */
  drain(on: boolean): void {
    if (this.#drains === on) return
    this.#drains = on
    if (on) this.#socket.resume()
  }

  ref(): void {
    this.#socket.ref()
  }

  unref(): void {
    this.#socket.unref()
  }

  /** Fails what postgres.js has under way, and parts it from the socket. */
  cut(error: Error): void {
    if (!this.#live) return
    this.#live = false
    this.#cause = error
    if (this.listenerCount('error') > 0) this.emit('error', error)
  }

  /** Says goodbye: Terminate and our FIN. The server's own FIN is still to come; whatever it sends before is dropped. */
  hangUp(error: Error): void {
    if (this.#hungUp) return
    this.#hungUp = true
    this.cut(error)
    // A COPY that nobody read has paused the socket: the FIN would never be read.
    this.#socket.resume()
    // One that is on its way out would not read it, and its end would reach us as a reset.
    if (this.frames.fatal) return
    if (this.#socket.writable) this.#socket.end(terminate)
  }

  /** Ends the socket without a goodbye. What the server knows of it is not known. */
  kill(error: Error): void {
    this.#hungUp = true
    this.cut(error)
    this.#end('other', error)
    this.#socket.destroy()
  }

  // ── For postgres.js, in the manner of a socket ─────────────────────────────────────────────────────────────────

  get readyState(): 'open' | 'closed' {
    return this.#live ? 'open' : 'closed'
  }

  write(chunk: Buffer, done?: (error?: Error | null) => void): boolean {
    if (!this.#live) {
      done?.(this.#cause instanceof Error ? this.#cause : null)
      return true
    }
    if (this.#expected) {
      const isSame = this.#expected.equals(chunk)
      this.#expected = undefined
      if (isSame) this.#listener?.wrote()
      else this.#listener?.died(new Error('bug: a query was sent as something else than postgres.js has made of it'))
      return true
    }
    this.frames.sent(chunk)
    // The stream of a COPY hears of a failure when its query does, with what the connection was lost for.
    const written = (error?: Error | null): void => {
      if (!error) done?.()
    }
    const bytes = this.prelude ? this.prelude.before(chunk) : chunk
    if (bytes.length > 0) this.#socket.write(bytes, done && written)
    else done?.()
    this.#listener?.wrote()
    // One query at a time: there is never so much on its way that postgres.js would have to hold back.
    return true
  }

  pause(): this {
    // With the last data of a COPY it would be for good: the stream, which has all it needs, never asks for more.
    if (this.#live && !this.#drains && this.frames.copy === 'out') this.#socket.pause()
    return this
  }

  resume(): this {
    this.#socket.resume()
    return this
  }

  /** Called where the server's proof that it knows the password is wrong. Whoever opens it says goodbye. */
  destroy(): this {
    const error = notProven()
    if (this.#listener) this.#listener.died(error)
    else this.kill(error)
    return this
  }

  // ── From the socket ────────────────────────────────────────────────────────────────────────────────────────────

  #arrived(bytes: Buffer): void {
    if (!this.#live) return
    const chunk = this.#guard
      ? this.#guarded(this.#guard, bytes)
      : this.prelude?.pending
        ? this.#after(this.prelude, bytes)
        : bytes
    if (chunk.length === 0) return
    let from = this.#rows?.midway ? this.#rows.read(chunk, 0, this.#refused) : 0
    while (from < chunk.length && this.#live) {
      const at = this.frames.received(chunk, from)
      if (at > from) this.emit('data', from === 0 && at === chunk.length ? chunk : chunk.subarray(from, at))
      if (at === chunk.length) break
      if (this.frames.atBoundary) {
        // The next query is handed over now, before its answer is read.
        this.#listener?.arrived()
        if (this.frames.atBoundary) return
        from = at
        continue
      }
      if (this.#rows && chunk[at] === toClient.dataRow) {
        from = this.#rows.read(chunk, at, this.#refused)
        continue
      }
      if (this.frames.intruded) {
        this.#listener?.died(new Error('the server asked for authentication in the middle of a session'))
        return
      }
      this.#listener?.mending()
      this.emit('data', emptyCommandComplete)
      from = at
    }
    this.#listener?.arrived()
  }

  /** postgres.js knows what to do with a row that cannot be read. */
  readonly #refused = (row: Buffer): void => void this.emit('data', row)

  /** What the guard lets through. Whoever it refuses is of no use. */
  #guarded(guard: LoginGuard, bytes: Buffer): Buffer {
    try {
      const passed = guard.accept(bytes)
      if (guard.done) this.#guard = undefined
      return passed
    } catch (error) {
      this.#listener?.died(error)
      return nothing
    }
  }

  /** What is not the answer to the prelude. */
  #after(prelude: Prelude, bytes: Buffer): Buffer {
    const { passed, send } = prelude.accept(bytes)
    if (send) this.#socket.write(send)
    return passed
  }

  #end(how: 'fin' | 'other', cause: unknown): void {
    if (this.#seen === 'nothing') {
      this.#seen = how
      if (how === 'fin') this.#released.resolve()
      else this.#released.reject(cause)
    }
    if (!this.#live || this.#hungUp) return
    this.#cause = cause
    // Through the listener, who knows what to tell postgres.js.
    if (this.#listener) this.#listener.died(cause)
    else this.#live = false
  }
}

const nothing: Buffer = Buffer.alloc(0)
const terminate = message('X', '')
