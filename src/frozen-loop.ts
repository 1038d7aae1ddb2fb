/** The argument by which a pool knows that the event loop of its Piscina worker runs between two tasks. */
export const loopRuns = '--millpond'

const piscinaWorker = /[\\/]piscina[\\/]dist[\\/](?:src[\\/])?worker\.js$/

/**
 * Whether the event loop of this thread stands still between two tasks: it is a worker of somebody's Piscina, whose default
 * (`atomics: 'sync'`) is to wait for the next task without it. What an idle connection needs would never come to pass, and
 * its permit would be lost to all others.
 *
 * The mode itself cannot be seen from inside. So it is taken for the default unless the Piscina was made with
 * `piscinaOptions`, or the variables of Piscina's own say otherwise.
 */
export function loopStops(): boolean {
  const { argv, env } = process
  return (
    piscinaWorker.test(argv[1] ?? '') &&
    !argv.includes(loopRuns) &&
    env['PISCINA_DISABLE_ATOMICS'] !== '1' &&
    env['PISCINA_ENABLE_ASYNC_ATOMICS'] !== '1'
  )
}

let warned = false

/** Once per thread. */
export function warnOfStops(): void {
  if (warned) return
  warned = true
  process.emitWarning(
    "A pool is in a worker of a Piscina that was made without piscinaOptions, which by default stops the worker's event loop between two tasks: the pool keeps no idle connection, so each query opens one and waits for its end. Spread piscinaOptions of 'millpond/service' into the options of that Piscina.",
    'MillpondWarning',
  )
}
