import { orAborted } from '../deadline.ts'
import { parseArray, serializeArray } from './arrays.ts'
import type { Connection } from './connection.ts'
import type { SessionOptions } from './template.ts'

const everyArrayType = `
  select b.oid::int8::text as oid, b.typarray::int8::text as typarray
  from pg_catalog.pg_type a
  join pg_catalog.pg_type b on b.oid = a.typelem
  where a.typcategory = 'A' and b.typarray <> 0
  group by b.oid, b.typarray
  order by b.oid`

/**
 * Which array belongs to which type, asked once per pool and put where all its connections look. postgres.js would ask
 * on every connection, and end the process where the question fails.
 *
 * State: unknown → asking (one connection asks, the others wait for it) → known; asking → unknown where it failed
 */
export class ArrayTypes {
  readonly #options: SessionOptions
  #known: boolean
  #asking: Promise<void> | undefined

  /** `wanted` false: arrays stay strings, nothing is asked. */
  constructor(options: SessionOptions, wanted: boolean) {
    this.#options = options
    this.#known = !wanted
  }

  /** Resolves when they are known; rejects if asking on this connection failed. */
  async ready(connection: Connection, signal: AbortSignal): Promise<void> {
    while (!this.#known) {
      if (this.#asking) {
        // Where another connection fails, this one asks itself.
        await orAborted(this.#asking, signal).catch(() => undefined)
        signal.throwIfAborted()
        continue
      }
      this.#asking = this.#ask(connection, signal)
      try {
        await this.#asking
      } finally {
        this.#asking = undefined
      }
    }
  }

  async #ask(connection: Connection, signal: AbortSignal): Promise<void> {
    const rows = await connection.ask(everyArrayType, [], signal)
    for (const { oid, typarray } of rows) this.#add(Number(oid), Number(typarray))
    this.#known = true
  }

  #add(oid: number, typarray: number): void {
    const { parsers, serializers, shared, transform } = this.#options
    if (parsers[typarray] && serializers[typarray]) return
    shared.typeArrayMap[oid] = typarray
    // Looked up with each value: a parser for elements may be replaced later.
    const parser = (text: string): unknown => parseArray(text, parsers[oid], typarray)
    parsers[typarray] = Object.assign(parser, { array: true })
    serializers[typarray] = (value) => serializeArray(value, serializers[oid], typarray, transform.undefined)
  }
}
