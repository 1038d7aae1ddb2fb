import { subscribe, unsubscribe } from 'node:diagnostics_channel'

/** The events of this thread that one listener hears: those that are wanted at the time. */
export class Subscriptions {
  readonly #listener: (event: unknown) => void
  readonly #names = new Set<string>()

  constructor(listener: (event: unknown) => void) {
    this.#listener = listener
  }

  /** From now on these, and no others. */
  want(events: readonly string[]): void {
    for (const name of this.#names) {
      if (events.includes(name)) continue
      unsubscribe(name, this.#listener)
      this.#names.delete(name)
    }
    for (const name of events) {
      if (this.#names.has(name)) continue
      subscribe(name, this.#listener)
      this.#names.add(name)
    }
  }
}
