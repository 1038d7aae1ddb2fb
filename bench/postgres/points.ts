import type { Contender } from './contenders.ts'
import { items, portion } from './queries.ts'

export const works = ['row', 'rows', 'lease', 'transaction'] as const
export type Work = (typeof works)[number]

/** So many callers do the same work over and over, each as soon as its last answer has come. */
export interface Point {
  readonly work: Work
  readonly callers: number
}

const says: Readonly<Record<Work, string>> = {
  row: 'one row',
  rows: `${portion} rows`,
  lease: 'lease, one query',
  transaction: 'transaction of three',
}

export function nameOf({ work, callers }: Point): string {
  return `${says[work]}, ${callers} ${callers === 1 ? 'caller' : 'callers'}`
}

export const points: readonly Point[] = works.flatMap((work) =>
  (work === 'lease' || work === 'transaction' ? [1, 8, 64] : [1, 8, 64, 512]).map((callers) => ({ work, callers })),
)

/** For each operation, in µs: how long it took, all callers together, and the time of our processor. */
export interface Cost {
  readonly wall: number
  readonly cpu: number
}

export function can(contender: Contender, { work }: Point): boolean {
  return contender[work] !== undefined
}

/** Works for so long. */
export async function measure(contender: Contender, { work, callers }: Point, ms: number): Promise<Cost> {
  const operation = contender[work]?.bind(contender)
  if (!operation) throw new Error(`It has no ${work}.`)
  const expected = work === 'rows' ? portion : 1
  const last = items - portion
  let done = 0
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  const until = startedAt + ms
  const caller = async (): Promise<void> => {
    do {
      const rows = await operation(1 + Math.floor(Math.random() * last))
      if (rows.length !== expected) throw new Error(`${rows.length} rows instead of ${expected}`)
      done++
    } while (performance.now() < until)
  }
  await Promise.all(Array.from({ length: callers }, caller))
  const wall = (performance.now() - startedAt) * 1e3
  const { user, system } = process.cpuUsage(cpuBefore)
  return { wall: wall / done, cpu: (user + system) / done }
}
