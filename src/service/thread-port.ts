import { receiveMessageOnPort } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { toWire } from './wire.ts'
import { giveUp } from './abort.ts'
import type { Job, Sent, TaskRequest } from './job.ts'
import type { FromThread, ToThread } from './thread.ts'
import type { Parcel, TaskReply } from './parcel.ts'

/** What the service does for a thread of its own. */
export interface ThreadHost {
  /** The job of this thread that has that number. */
  jobOf(thread: ThreadPort, id: number): Job | undefined
  /** Throws if the call is refused. */
  send(request: TaskRequest, parent: Job | undefined, tell: (value: Parcel) => void): Sent
}

/**
 * The service's side of a thread that has introduced itself. Hears what became of the calls that it runs, and sends the
 * calls that it makes; those are given up when it ends.
 */
export class ThreadPort {
  readonly threadId: number
  readonly closed: Promise<void>
  readonly #port: MessagePort
  readonly #host: ThreadHost
  readonly #calls = new Map<number, { readonly sent: Sent; readonly words: Int32Array }>()

  constructor(threadId: number, port: MessagePort, host: ThreadHost) {
    this.threadId = threadId
    this.#port = port
    this.#host = host
    this.closed = new Promise((resolve) => {
      port.once('close', () => {
        for (const { sent, words } of this.#calls.values()) {
          giveUp(words, 'aborted')
          sent.giveUp()
        }
        resolve()
      })
    })
    port.on('message', (message: FromThread) => this.#hear(message))
    port.unref()
  }

  /** Hears at once what the thread has posted so far. */
  drain(): void {
    for (let next = receiveMessageOnPort(this.#port); next; next = receiveMessageOnPort(this.#port)) {
      this.#hear(next.message as FromThread)
    }
  }

  /** Has its pool closed; resolves when it is, or when the thread has ended. */
  async close(): Promise<void> {
    this.#say({ type: 'close' })
    await this.closed
  }

  #hear(message: FromThread): void {
    switch (message.type) {
      case 'progress':
        return this.#host.jobOf(this, message.id)?.tell(message.value)
      case 'reply':
        return this.#host.jobOf(this, message.id)?.replied(message.reply)
      case 'run':
        return this.#run(message)
      case 'give up':
        return this.#calls.get(message.id)?.sent.giveUp()
      case 'warning':
        return process.emitWarning(message.message, 'MillpondWarning')
    }
  }

  #run({ id, task, input, words, priority, parent }: Extract<FromThread, { type: 'run' }>): void {
    const asking = parent === undefined ? undefined : this.#host.jobOf(this, parent)
    let sent: Sent
    try {
      const tell = (value: Parcel): void => this.#say({ type: 'progress', id, value })
      sent = this.#host.send({ task, input, words, priority }, asking, tell)
    } catch (error) {
      return this.#answer(id, { ok: false, error: toWire(error) })
    }
    this.#calls.set(id, { sent, words })
    void sent.reply.then((reply) => {
      this.#calls.delete(id)
      this.#answer(id, reply)
    })
  }

  /** Something that has crossed once may still not be able to do so again. */
  #answer(id: number, reply: TaskReply): void {
    try {
      this.#say({ type: 'reply', id, reply })
    } catch (error) {
      this.#say({ type: 'reply', id, reply: { ok: false, error: toWire(error) } })
    }
  }

  #say(message: ToThread): void {
    const transfer = message.type === 'reply' && message.reply.ok ? message.reply.value.transfer : undefined
    this.#port.postMessage(message, transfer ?? [])
  }
}
