import type { Address } from './dial.ts'

/** How long a server that failed is tried after the others. */
const aftertimeMs = 30_000

/**
 * In which order the servers of one pool are tried: as they were given, but those that failed lately last. A first one
 * that takes a connect's share of time and says nothing would cost each of them that much.
 */
export class HostOrder {
  readonly #addresses: readonly Address[]
  readonly #failedAt = new Map<Address, number>()

  constructor(addresses: readonly Address[]) {
    this.#addresses = addresses
  }

  at(now: number): readonly Address[] {
    const failed = (address: Address): boolean => now - (this.#failedAt.get(address) ?? -Infinity) < aftertimeMs
    return [...this.#addresses.filter((one) => !failed(one)), ...this.#addresses.filter(failed)]
  }

  failed(address: Address, now: number): void {
    this.#failedAt.set(address, now)
  }

  served(address: Address): void {
    this.#failedAt.delete(address)
  }
}
