/** What is done with the frames of one direction. */
export interface FrameVisitor {
  /** A frame begins. True stops the reading right before it; asked again when the reading goes on. */
  begins(type: number): boolean
  /** Whether `ends` needs the payload. */
  wants(type: number): boolean
  /** A frame has passed completely. `payload` is empty unless wanted. Type 0 is the startup packet, which has none. */
  ends(type: number, payload: Buffer): void
}

/** Of a frame: one byte of type, four of length. */
export const headerSize = 5
const longestWanted = 2 ** 16
const nothing: Buffer = Buffer.alloc(0)

/**
 * Cuts one direction of a PostgreSQL stream into frames: one byte of type, four of length, the payload.
 *
 * State
 *   have   how much of the current frame's header has come, 0 … 5; 0 is between two frames
 *   left   how much of its payload has not come; counts while have === 5
 *
 * Payloads are not kept and not joined, but for the few short ones that the visitor wants.
 */
export class Framer {
  readonly #visitor: FrameVisitor
  #have = 0
  #type = 0
  #length = 0
  #left = 0
  #payload: Buffer | undefined

  /** `untypedFirst`: the first frame has no type byte, as the packet that starts a session. */
  constructor(visitor: FrameVisitor, untypedFirst = false) {
    this.#visitor = visitor
    if (untypedFirst) this.#have = 1
  }

  /** Reads on. Returns where it stopped: the end of the chunk, or before a frame at which the visitor said so. */
  read(chunk: Buffer, from = 0): number {
    let at = from
    const end = chunk.length
    while (at < end) {
      if (this.#have === 0) {
        const type = chunk[at] ?? 0
        if (this.#visitor.begins(type)) return at
        this.#type = type
        if (end - at >= headerSize) {
          this.#length = chunk.readUInt32BE(at + 1)
          at += headerSize
          this.#enter()
        } else {
          this.#have = 1
          this.#length = 0
          at++
          continue
        }
      } else if (this.#have < headerSize) {
        this.#length = this.#length * 256 + (chunk[at] ?? 0)
        at++
        if (++this.#have < headerSize) continue
        this.#enter()
      }
      at = this.#pass(chunk, at)
    }
    return at
  }

  /** The header is complete. */
  #enter(): void {
    this.#have = headerSize
    this.#left = Math.max(0, this.#length - 4)
    this.#payload = undefined
  }

  /** Passes over what has come of the payload. */
  #pass(chunk: Buffer, at: number): number {
    const to = Math.min(chunk.length, at + this.#left)
    const complete = to - at === this.#left
    let payload = nothing
    if (this.#visitor.wants(this.#type) && this.#length <= longestWanted) {
      if (complete && !this.#payload) {
        payload = chunk.subarray(at, to)
      } else {
        this.#payload ??= Buffer.allocUnsafe(this.#left)
        payload = this.#payload
        chunk.copy(payload, payload.length - this.#left, at, to)
      }
    }
    this.#left -= to - at
    if (complete) {
      this.#have = 0
      this.#payload = undefined
      this.#visitor.ends(this.#type, payload)
    }
    return to
  }
}
