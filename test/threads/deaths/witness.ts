import { setTimeout as sleep } from 'node:timers/promises'
import type { TestRole } from '../../support/role.ts'

/** Looks every few milliseconds, as another role, how many backends the server counts for a role. */
export class Witness implements AsyncDisposable {
  readonly #role: TestRole
  readonly #looking: Promise<void>
  #stopped = false
  peak = 0
  samples = 0

  constructor(role: TestRole) {
    this.#role = role
    this.#looking = this.#look()
  }

  async stop(): Promise<{ peak: number; samples: number }> {
    this.#stopped = true
    await this.#looking
    return { peak: this.peak, samples: this.samples }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #look(): Promise<void> {
    while (!this.#stopped) {
      this.peak = Math.max(this.peak, (await this.#role.sessions()).length)
      this.samples++
      await sleep(1)
    }
  }
}
