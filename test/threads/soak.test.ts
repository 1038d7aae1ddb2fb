import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

interface Violation {
  readonly rule: string
  readonly atMs: number
  readonly detail: string
}

interface Outcome {
  readonly options: { readonly seed: number }
  readonly violations: readonly Violation[]
  readonly figures: {
    readonly samples: number
    readonly peak: number
    readonly done: number
    readonly deaths: Readonly<Record<string, number>>
  }
}

const folder = new URL('../soak/', import.meta.url)

/** In a process of its own: its threads run out of memory, and Node may take all of the process for that. */
async function soak(environment: Record<string, string>): Promise<Outcome> {
  const seed = process.env['SOAK_SEED'] ?? String(Date.now() % 1_000_000)
  return new Promise((resolve, reject) => {
    const path = fileURLToPath(new URL('run.mjs', folder))
    const env = { ...process.env, SOAK_SEED: seed, ...environment }
    const options = { env, timeout: 110_000, maxBuffer: 16 * 2 ** 20 }
    execFile(process.execPath, [path, '--json'], options, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Outcome)
      } catch {
        reject(new Error(`the soak with SOAK_SEED=${seed} has no verdict: ${stderr}`, { cause: error }))
      }
    })
  })
}

const { deaths } = (await import(new URL('schedule.mjs', folder).href)) as { deaths: readonly string[] }

describe('a soak of ten seconds', () => {
  test('of random load, with every kind of death, violates nothing', { timeout: 120_000 }, async () => {
    const { options, violations, figures } = await soak({ SOAK_SECONDS: '10' })
    expect(violations, `SOAK_SEED=${options.seed}, ${JSON.stringify(figures)}`).toEqual([])
    expect(Object.keys(figures.deaths)).toEqual(expect.arrayContaining([...deaths, 'nest']))
    // Some 500 alone on a machine. Where all die at once, nobody has a connection for a second or more, and others compute here.
    expect(figures.done).toBeGreaterThan(10)
  })
})

interface Mutants {
  mutations: Readonly<Record<string, unknown>>
  mutant: (name: string) => { dist: string; remove: () => void }
}

const { mutations, mutant } = (await import(new URL('mutant.mjs', folder).href)) as Mutants

describe('a soak of a build in which a permit comes back without evidence', () => {
  // It ends with the first count above the limit; what it would take to find none is more than enough.
  // How soon it shows is a matter of chance.
  test.each(Object.keys(mutations))('counts more than the limit: %s', { timeout: 120_000, retry: 2 }, async (name) => {
    const { dist, remove } = mutant(name)
    try {
      const { options, violations } = await soak({
        SOAK_SECONDS: '30',
        SOAK_DIST: dist,
        SOAK_UNTIL_EXCESS: '1',
        // So that the limit is always reached, and something is always running when a thread dies.
        SOAK_LIMIT: '3',
        SOAK_LONG_QUERIES: '30',
      })
      const excess = violations.find(({ rule }) => rule === 'limit')
      const [count, allowed] = (/^(\d+) of (\d+): /.exec(excess?.detail ?? '') ?? []).slice(1).map(Number)
      expect(count, `SOAK_SEED=${options.seed}: ${JSON.stringify(violations)}`).toBeGreaterThan(allowed ?? Infinity)
    } finally {
      remove()
    }
  })
})
