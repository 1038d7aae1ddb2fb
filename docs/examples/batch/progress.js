import { logUpdateStderr } from 'log-update'

const width = 30

/**
 * A bar on a terminal; where there is none, in a log or in CI, a line for each tenth.
 *
 * @param {number} total
 */
export function progressBar(total) {
  const startedAt = performance.now()
  let told = -1
  return (/** @type {number} */ done) => {
    const part = done / total
    const filled = Math.floor(part * width)
    const rate = Math.round((done / (performance.now() - startedAt)) * 1_000)
    const bar = `${'█'.repeat(filled)}${'░'.repeat(width - filled)}`
    const line = `${bar} ${Math.floor(part * 100)} %  ${done} of ${total} rows, ${rate} a second`
    if (process.stderr.isTTY) logUpdateStderr(line)
    else if (Math.floor(part * 10) > told) console.error(line)
    told = Math.floor(part * 10)
    if (done === total) logUpdateStderr.done()
  }
}
