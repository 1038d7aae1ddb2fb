import { Deque } from '../deque.ts'
import type { Job } from './job.ts'

/** Jobs that wait for a worker: what tasks ask for first, then by priority, then by age. */
export class JobQueue {
  readonly #byRank = new Map<number, Deque<Job>>()
  /** The ranks in use, highest first. */
  #ranks: number[] = []
  #size = 0

  get size(): number {
    return this.#size
  }

  push(job: Job): void {
    // Those who wait for it hold a worker meanwhile.
    const rank = job.parent ? Infinity : job.request.priority
    let deque = this.#byRank.get(rank)
    if (!deque) {
      deque = new Deque<Job>()
      this.#byRank.set(rank, deque)
      this.#ranks = [...this.#byRank.keys()].toSorted((a, b) => b - a)
    }
    deque.pushBack(job)
    this.#size++
  }

  shift(): Job | undefined {
    for (const rank of this.#ranks) {
      const job = this.#byRank.get(rank)?.first
      if (job) {
        this.remove(job)
        return job
      }
    }
    return undefined
  }

  /** False if it does not wait. */
  remove(job: Job): boolean {
    for (const [rank, deque] of this.#byRank) {
      if (!deque.remove(job)) continue
      this.#size--
      if (deque.size === 0) {
        this.#byRank.delete(rank)
        this.#ranks = this.#ranks.filter((one) => one !== rank)
      }
      return true
    }
    return false
  }
}
