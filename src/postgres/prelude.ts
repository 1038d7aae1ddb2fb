import { headerSize } from './framer.ts'
import { errorFields, toClient, toServer } from './frames.ts'
import type { ErrorFields } from './frames.ts'
import { bind, execute, message, sync } from './messages.ts'

/**
 * A statement that goes out together with what is sent after it, and costs no round trip of its own: BEGIN.
 *
 * State: unsent → sent → answered | failed
 *
 * It is a step of the extended protocol without a Sync of its own: where it fails, the server skips all that follows up
 * to the Sync, and the error is the answer to that. Behind a simple query nothing would be skipped. So that one is held
 * back until the statement, with a Sync then, has been answered; it is never sent if that is an error.
 *
 * Always: of what the server sends, postgres.js sees neither the answer to this statement nor anything in its place. To
 * it, the error is the answer to its own query.
 */
export class Prelude {
  readonly text: string
  #state: 'unsent' | 'sent' | 'answered' | 'failed' = 'unsent'
  /** What waits for the answer, while there is something. */
  #held: Buffer[] | undefined
  /** The beginning of a message whose end has not come. */
  #rest: Buffer | undefined
  #failure: ErrorFields | undefined

  constructor(text: string) {
    this.text = text
  }

  get unsent(): boolean {
    return this.#state === 'unsent'
  }

  /** Its answer is still to come, or to be completed. */
  get pending(): boolean {
    return this.#state === 'sent'
  }

  /** What the server has answered, if that is an error. */
  get failure(): ErrorFields | undefined {
    return this.#failure
  }

  /** What to write in place of this; the rest comes from `accept`. */
  before(chunk: Buffer): Buffer {
    if (this.#state === 'sent' && this.#held) {
      this.#held.push(chunk)
      return nothing
    }
    if (this.#state !== 'unsent') return chunk
    this.#state = 'sent'
    const steps = stepsOf(this.text)
    if (chunk[0] !== toServer.query) return Buffer.concat([steps, chunk])
    this.#held = [chunk]
    return Buffer.concat([steps, sync])
  }

  /** Takes its own answer out of what the server has sent. `send`: what has been held back until now. */
  accept(bytes: Buffer): { readonly passed: Buffer; readonly send: Buffer | undefined } {
    const chunk = this.#rest ? Buffer.concat([this.#rest, bytes]) : bytes
    const passed: Buffer[] = []
    let at = 0
    while (this.#state === 'sent' && chunk.length - at >= headerSize) {
      const end = at + 1 + chunk.readUInt32BE(at + 1)
      if (end > chunk.length) break
      const received = chunk.subarray(at, end)
      if (this.#isPassed(received)) passed.push(received)
      at = end
    }
    const rest = chunk.subarray(at)
    if (this.#state === 'sent') {
      this.#rest = rest
      return { passed: Buffer.concat(passed), send: undefined }
    }
    const held = this.#state === 'answered' ? this.#held : undefined
    this.#rest = undefined
    this.#held = undefined
    return { passed: passed.length > 0 ? Buffer.concat([...passed, rest]) : rest, send: held && Buffer.concat(held) }
  }

  #isPassed(received: Buffer): boolean {
    switch (received[0] as number) {
      case toClient.parseComplete:
      case toClient.bindComplete:
        return false
      case toClient.commandComplete:
        if (!this.#held) this.#state = 'answered'
        return false
      case toClient.readyForQuery:
        this.#state = 'answered'
        return false
      case toClient.errorResponse:
        this.#state = 'failed'
        this.#failure = errorFields(received.subarray(headerSize))
        return true
      default:
        // Notices, notifications, settings.
        return true
    }
  }
}

const nothing: Buffer = Buffer.alloc(0)

const remembered = new Map<string, Buffer>()

/** Parse, Bind and Execute, without names. There are few texts: the ways to begin. */
function stepsOf(text: string): Buffer {
  let steps = remembered.get(text)
  if (!steps) {
    const parse = message('P', `\0${text}\0\0\0`)
    remembered.set(text, (steps = Buffer.concat([parse, bind('', []), execute])))
  }
  return steps
}
