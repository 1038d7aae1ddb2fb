import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join, posix, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

// Imports, those of types included, lead to a lower floor only. Within a folder that is one floor, they make no circle.
const floors: readonly (readonly string[])[] = [
  ['channels', 'clock', 'deferred', 'deque', 'driver', 'frozen-loop', 'histogram', 'lull'],
  ['stats', 'deadline-timer'],
  ['errors', 'permits', 'deadline', 'waiters', 'backoff', 'low-water', 'counters', 'holding', 'borrowing', 'signals'],
  ['watch', 'slot', 'expiry', 'close-on-signal', 'thaw-clock', 'broker/layout', 'broker/allocation'],
  ['options', 'action', 'idle', 'slots', 'core-invariants', 'lease', 'refs', 'broker/ledger'],
  [
    'core',
    'acquire',
    'presets',
    'broker/settle',
    'broker/registers',
    'broker/look',
    'broker/release',
    'broker/calm',
    'broker/bury',
    'broker/call',
  ],
  ['driver-calls', 'permit-user', 'upkeep', 'broker/'],
  ['pool'],
  ['postgres/'],
  ['service/'],
  ['index', 'testing/', 'cli/', '../workers/'],
]

/** What each part may import that is not ours. `node:` is open to all but the pure ones. */
const thirdParty: Readonly<Record<string, readonly string[]>> = {
  'postgres/': ['postgres'],
  'service/': ['piscina'],
  'cli/': ['commander'],
}

/** Synchronous, and without a Node module: tested as plain function calls. */
const pure = [
  'core',
  'slot',
  'idle',
  'slots',
  'core-invariants',
  'waiters',
  'deque',
  'backoff',
  'low-water',
  'histogram',
  'counters',
  'broker/layout',
  'broker/allocation',
  'broker/ledger',
  'broker/settle',
  'broker/registers',
  'broker/look',
  'broker/release',
  'broker/calm',
  'broker/resize',
  'broker/bury',
  'broker/call',
  'postgres/limit-sum',
]

interface Source {
  /** Its path below src, without the ending. */
  readonly name: string
  readonly text: string
  readonly imports: readonly string[]
}

function read(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => {
      const path = join(entry.parentPath, entry.name)
      const text = readFileSync(path, 'utf8')
      const name = relative(join(root, 'src'), path).replace(/\.ts$/, '').replaceAll('\\', '/')
      const code = text.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '')
      const imports = [...code.matchAll(/(?:from|import)\s+'([^']+)'|import\('([^']+)'\)/g)].map(
        (match) => match[1] ?? match[2] ?? '',
      )
      return { name, text, imports }
    })
}

const sources = [...read('src'), ...read('workers')]

function floorOf(name: string): number {
  const exact = floors.findIndex((floor) => floor.includes(name))
  return exact >= 0
    ? exact
    : floors.findIndex((floor) => floor.some((one) => one.endsWith('/') && name.startsWith(one)))
}

function resolved(from: string, specifier: string): string {
  return posix.normalize(posix.join(dirname(from), specifier)).replace(/\.ts$/, '')
}

const ours = (source: Source): string[] =>
  source.imports.filter((one) => one.startsWith('.')).map((one) => resolved(source.name, one))

describe('the house', () => {
  test('every file of src has its floor', () => {
    expect(sources.length).toBeGreaterThan(20)
    expect(sources.filter(({ name }) => floorOf(name) < 0).map(({ name }) => name)).toEqual([])
  })

  test('imports lead down', () => {
    const wrong: string[] = []
    for (const source of sources) {
      for (const target of ours(source)) {
        const [from, to] = [floorOf(source.name), floorOf(target)]
        const sameFolder = from === to && dirname(source.name) === dirname(target) && source.name.includes('/')
        if (!(to < from || sameFolder)) wrong.push(`${source.name} → ${target}`)
      }
    }
    expect(wrong).toEqual([])
  })

  test('nothing imports itself, by no way round', () => {
    const targets = new Map(sources.map((source) => [source.name, ours(source)]))
    const done = new Set<string>()
    const circles: string[] = []
    const walk = (name: string, path: readonly string[]): void => {
      if (path.includes(name)) circles.push([...path.slice(path.indexOf(name)), name].join(' → '))
      if (path.includes(name) || done.has(name)) return
      for (const next of targets.get(name) ?? []) walk(next, [...path, name])
      done.add(name)
    }
    for (const name of targets.keys()) walk(name, [])
    expect(circles).toEqual([])
  })

  test('strangers stay outside', () => {
    const wrong: string[] = []
    for (const source of sources) {
      const allowed = Object.entries(thirdParty).find(([folder]) => source.name.startsWith(folder))?.[1] ?? []
      for (const one of source.imports) {
        if (!one.startsWith('.') && !one.startsWith('node:') && !allowed.includes(one))
          wrong.push(`${source.name}: ${one}`)
      }
    }
    expect(wrong).toEqual([])
  })

  test('the machines are pure: no Node module, no timer, no promise', () => {
    const wrong: string[] = []
    for (const name of pure) {
      const source = sources.find((one) => one.name === name)
      expect(source, name).toBeDefined()
      const code = source?.text.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '') ?? ''
      const found = /from 'node:|\bawait\b|\basync\b|\bsetTimeout\b|\bPromise\b|\bDate\b|\bperformance\b/.exec(code)
      if (found) wrong.push(`${name}: ${found[0]}`)
    }
    expect(wrong).toEqual([])
  })

  test('no module of the library waits at its top level, so that require() can load it', () => {
    // Statements of a module stand at the beginning of a line.
    const waiting = sources.filter(({ text }) => /^(?:(?:export )?(?:const|let) .*= )?await /m.test(text))
    expect(waiting.map(({ name }) => name)).toEqual([])
  })

  test('no file has grown past what one can hold in one’s head', () => {
    const long = sources.filter(({ text }) => text.split('\n').length > 600).map(({ name }) => name)
    expect(long).toEqual([])
  })
})
