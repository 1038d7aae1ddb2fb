import { createHistogram } from 'node:perf_hooks'
import type { RecordableHistogram } from 'node:perf_hooks'
import type { Done } from './work.ts'

/** One member's part in a run. */
export interface Member {
  readonly label: string
  done: number
  lost: number
  /** Microseconds. */
  readonly waits: RecordableHistogram
  /** The most connections it held at any time. */
  held: number
}

/** What came of a run, by member and in all. */
export class Tally {
  readonly members: Map<string, Member> = new Map()
  readonly errors: Map<string, number> = new Map()
  #tasks = new Map<number, string>()

  succeeded(kind: string, { threadId, waitMs }: Done): void {
    const member = this.member(this.label(kind, threadId))
    member.done++
    member.waits.record(Math.max(1, Math.round(waitMs * 1000)))
  }

  failed(kind: string, code: string): void {
    // Which of the task workers it was is not known.
    this.member(kind === 'task worker' ? 'task workers' : kind).lost++
    this.errors.set(code, (this.errors.get(code) ?? 0) + 1)
  }

  /** Threads are numbered by Node; people count task workers from 1. */
  label(kind: string, threadId: number): string {
    if (kind !== 'task worker') return kind
    const known = this.#tasks.get(threadId)
    if (known !== undefined) return known
    const label = `task worker ${this.#tasks.size + 1}`
    this.#tasks.set(threadId, label)
    return label
  }

  /** The label of a thread that has done something already. */
  taskLabel(threadId: number): string | undefined {
    return this.#tasks.get(threadId)
  }

  member(label: string): Member {
    let member = this.members.get(label)
    if (!member) {
      member = { label, done: 0, lost: 0, waits: createHistogram(), held: 0 }
      this.members.set(label, member)
    }
    return member
  }

  get done(): number {
    return [...this.members.values()].reduce((sum, member) => sum + member.done, 0)
  }

  get lost(): number {
    return [...this.members.values()].reduce((sum, member) => sum + member.lost, 0)
  }
}
