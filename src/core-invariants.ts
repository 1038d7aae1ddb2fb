import { state } from './slot.ts'
import type { Slot, State } from './slot.ts'
import type { PoolStats } from './stats.ts'

/** A core's state, between two of its methods. */
interface Rest<C> {
  readonly slots: {
    readonly size: number
    readonly unclosed: number
    readonly isSound: boolean
    count(of: State): number
  }
  readonly idle: readonly Slot<C>[]
  readonly waiting: number
  readonly phase: PoolStats['phase']
  readonly max: number
  readonly maxIdle: number
}

/** Throws if anything that must always hold does not (see `core.ts`). */
export function assertInvariants<C>({ slots, idle, waiting, phase, max, maxIdle }: Rest<C>): void {
  /* v8 ignore start -- every other side of these is a bug */
  const broken = [
    slots.count(state.idle) > maxIdle && 'more idle connections than maxIdle',
    slots.unclosed > max && idle.length > 0 && 'idle connections beyond max',
    idle.length > 0 && waiting > 0 && 'somebody waits beside an idle connection',
    !slots.isSound && 'the counts do not fit the states',
    (idle.length !== slots.count(state.idle) || idle.some((slot) => slot.state !== state.idle)) &&
      'idle is not what is idle',
    phase !== 'open' && (waiting > 0 || idle.length > 0) && 'a closed pool waits or idles',
    (phase === 'closed') !== (phase !== 'open' && slots.size === 0) && 'closed is not empty',
  ].filter((problem) => problem !== false)
  if (broken.length > 0) throw new Error(`bug: ${broken.join('; ')}`)
  /* v8 ignore stop */
}
