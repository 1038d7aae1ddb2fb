import { cpSync, copyFileSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/**
 * Where the library demands evidence before a permit serves again; each with what takes the demand away. The lines are
 * those of the build.
 */
export const mutations = {
  'what a dead thread left is free at once': {
    file: 'broker/ledger.js',
    from: 'stateOf(word) === state.granted ? state.free : state.limbo',
    to: 'state.free',
  },
  'a session is taken for ended without a look': {
    file: 'broker/member.js',
    from: 'ended = await place.user.reap(identity)',
    to: 'ended = true',
  },
  'a connection is taken for closed before the server has let go': {
    file: 'driver-calls.js',
    from: '(signal) => this.#driver.close(connection, signal)',
    to: 'async (signal) => void this.#driver.close(connection, signal).catch(() => {})',
  },
}

/** A build in which one rule is broken: a copy in a temporary folder. `remove` takes it away. */
export function mutant(name) {
  const { file, from, to } = mutations[name]
  const folder = mkdtempSync(join(tmpdir(), 'millpond-mutant-'))
  copyFileSync(join(root, 'package.json'), join(folder, 'package.json'))
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir')
  cpSync(join(root, 'dist', 'src'), join(folder, 'dist', 'src'), {
    recursive: true,
    filter: (path) => !/\.(map|d\.ts)$/.test(path),
  })
  const path = join(folder, 'dist', 'src', file)
  const parts = readFileSync(path, 'utf8').split(from)
  if (parts.length !== 2) {
    throw new Error(`${file} has "${from}" ${parts.length - 1} times: it was changed, and the mutation has to follow`)
  }
  writeFileSync(path, parts.join(to))
  return {
    dist: pathToFileURL(join(folder, 'dist')).href,
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
