import { constants } from 'node:os'

/**
 * Closes on the first of these signals and ends the process when that is done; a second one ends it at once.
 * Returns what takes the listeners away again.
 */
export function onSignals(signals: readonly NodeJS.Signals[], close: () => Promise<unknown>): () => void {
  let seen = false
  const listener = (signal: NodeJS.Signals): void => {
    // oxlint-disable-next-line no-process-exit -- this is what a signal asks for
    if (seen) process.exit(128 + constants.signals[signal])
    seen = true
    close().then(
      // oxlint-disable-next-line no-process-exit -- likewise
      () => process.exit(),
      (error: unknown) => {
        console.error(error)
        // oxlint-disable-next-line no-process-exit -- likewise
        process.exit(1)
      },
    )
  }
  for (const signal of signals) process.on(signal, listener)
  return () => {
    for (const signal of signals) process.off(signal, listener)
  }
}
