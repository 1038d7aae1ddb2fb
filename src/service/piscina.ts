import { loopRuns } from '../frozen-loop.ts'

/**
 * What a Piscina of your own needs if its workers have pools: its default stops a worker's event loop between two tasks,
 * and the pool in it, which can then give nothing back and notices nothing. A pool knows by the argument that these
 * options were used; without them it keeps no idle connection, and warns.
 *
 * @example
 * ```ts
 * import { Piscina } from 'piscina'
 * import { piscinaOptions } from 'millpond/service'
 *
 * const piscina = new Piscina({ ...piscinaOptions, filename: new URL('./tasks.js', import.meta.url).href })
 * ```
 */
export const piscinaOptions: {
  readonly atomics: 'disabled'
  /** By default a thread above the minimum ends with its task, and its connections with it. */
  readonly idleTimeout: number
  readonly argv: string[]
} = { atomics: 'disabled', idleTimeout: 30_000, argv: [loopRuns] }
