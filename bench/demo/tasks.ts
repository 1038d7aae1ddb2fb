import type { TaskContext } from '../../src/service/index.ts'
import { ours } from './ours.ts'
import { usual } from './usual.ts'
import { work } from './work.ts'
import type { Done } from './work.ts'

/** A bit of computing, then a query. */
export function viaMillpond(input: { queryMs: number; cpuMs: number }, { pool }: TaskContext): Promise<Done> {
  return work(ours(pool), input)
}

/** The same, with a pool of the thread's own. */
export function theUsualWay(input: { queryMs: number; cpuMs: number }): Promise<Done> {
  return work(usual, input)
}
