import { performance } from 'node:perf_hooks'
import { deferred } from '../deferred.ts'
import type { Deferred } from '../deferred.ts'
import type { Linked } from '../deque.ts'
import type { CallWords } from './abort.ts'
import type { Parcel, TaskReply } from './parcel.ts'

/** A call of a task, ready to be sent. */
export interface TaskRequest {
  /** As the caller names it. */
  readonly task: string
  readonly input: Parcel
  readonly words: CallWords
  readonly priority: number
}

/** A call that has been sent. */
export interface Sent {
  /** Never rejects with what the task threw: that is a reply, too. */
  readonly reply: Promise<TaskReply>
  /** The caller waits no longer; its words say so already. */
  giveUp(): void
}

/** Sends calls of tasks to where they run. `tell` hears of progress, before the reply comes. */
export type Send = (request: TaskRequest, tell: (value: Parcel) => void) => Sent

/** What the deadlock's check has to know of the workers that a job is for. */
export interface JobPlace {
  readonly running: ReadonlySet<Job>
  readonly hasRoom: boolean
}

/** Where a job runs. */
export interface JobSeat {
  wasOfUse: boolean
  end(job: Job): void
}

/**
 * One call in the service's thread.
 *
 *   queued → running → settled, or from queued to settled
 */
export class Job implements Linked<Job> {
  next: Job | undefined
  previous: Job | undefined
  deque: object | undefined
  readonly id: number
  readonly request: TaskRequest
  /** The name under which the module exports it; undefined: only load the module. */
  readonly exported: string | undefined
  readonly place: JobPlace
  /** The task that asked for it. */
  readonly parent: Job | undefined
  /** Calls of this one that are not settled. */
  readonly children: Set<Job> = new Set()
  readonly tell: (value: Parcel) => void
  readonly #onReply: (job: Job, reply: TaskReply) => void
  readonly queuedAt: number = performance.now()
  readonly settled: Deferred<TaskReply> = deferred<TaskReply>()
  startedAt = 0
  /** Where it runs. */
  seat: JobSeat | undefined
  /** Its caller waits no longer. */
  isGivenUp = false
  killer: NodeJS.Timeout | undefined

  constructor(details: {
    id: number
    request: TaskRequest
    exported: string | undefined
    place: JobPlace
    parent: Job | undefined
    tell: (value: Parcel) => void
    /** Its thread has replied, and is free of it. */
    onReply: (job: Job, reply: TaskReply) => void
  }) {
    this.id = details.id
    this.request = details.request
    this.exported = details.exported
    this.place = details.place
    this.parent = details.parent
    this.tell = details.tell
    this.#onReply = details.onReply
    this.parent?.children.add(this)
  }

  /** What its thread replies. */
  replied(reply: TaskReply): void {
    this.#onReply(this, reply)
  }

  settle(reply: TaskReply): void {
    clearTimeout(this.killer)
    this.parent?.children.delete(this)
    this.settled.resolve(reply)
  }
}

/**
 * Whether a running job can end, if each task waits for all that it has asked for: none of them may be queued where
 * nobody who runs can ever end.
 */
export function canEnd(job: Job): boolean {
  const ending = new Set<Job>()
  const known = new Set<Job>()
  const collect = (one: Job): void => {
    if (known.has(one)) return
    known.add(one)
    for (const child of one.children) {
      collect(child)
      for (const other of child.place.running) collect(other)
    }
  }
  collect(job)
  const isServed = (child: Job): boolean =>
    child.place.running.has(child)
      ? ending.has(child)
      : child.place.hasRoom || [...child.place.running].some((other) => ending.has(other))
  let size = -1
  while (size !== ending.size && !ending.has(job)) {
    size = ending.size
    for (const one of known) if ([...one.children].every(isServed)) ending.add(one)
  }
  return ending.has(job)
}
