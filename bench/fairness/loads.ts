import { Random } from './random.ts'
import type { Server } from './server.ts'
import type { Tally } from './tally.ts'
import type { VirtualTime } from './virtual-time.ts'

/** Where a load runs. */
export interface Stage {
  readonly server: Server
  readonly time: VirtualTime
  readonly tally: Tally
  readonly seed: number
  /** How long a query takes on average, in ms. */
  readonly serviceMs: number
}

/** Sets off what one member asks for. Its random numbers are its own: the same whoever serves. */
export type Load = (stage: Stage, member: number) => void

function query(stage: Stage, member: number, ms: number, ended: () => void = () => {}): void {
  const { server, time, tally } = stage
  const id = tally.came(member, time.now())
  server.acquire(member, (release) => {
    tally.served(member, id, time.now())
    time.setTimer(() => {
      tally.ended(member, time.now())
      release()
      ended()
    }, ms)
  })
}

/** So many clients, each of which asks again as soon as it has been answered. */
export function clients(count: number): Load {
  return (stage, member) => {
    for (let i = 0; i < count; i++) {
      const random = new Random(stage.seed, `client ${i} of ${member}`)
      const again = (): void => query(stage, member, random.exponential(stage.serviceMs), again)
      stage.time.setTimer(again, random.between(0, stage.serviceMs))
    }
  }
}

/** Clients that keep what they got for so long, and ask again at once. */
export function leases(count: number, leastMs: number, mostMs: number): Load {
  return (stage, member) => {
    for (let i = 0; i < count; i++) {
      const random = new Random(stage.seed, `lease ${i} of ${member}`)
      const again = (): void => query(stage, member, random.between(leastMs, mostMs), again)
      again()
    }
  }
}

/** Queries that come at random, so many a second; `perSecond` may depend on how long one takes. */
export function poisson(perSecond: number | ((serviceMs: number) => number), fromMs: number = 0): Load {
  return (stage, member) => {
    const random = new Random(stage.seed, `poisson of ${member}`)
    const rate = typeof perSecond === 'number' ? perSecond : perSecond(stage.serviceMs)
    const next = (): void => {
      stage.time.setTimer(
        () => {
          query(stage, member, random.exponential(stage.serviceMs))
          next()
        },
        random.exponential(1_000 / rate),
      )
    }
    stage.time.setTimer(next, fromMs)
  }
}

/** One query every so often. */
export function every(ms: number): Load {
  return (stage, member) => {
    const random = new Random(stage.seed, `every ${ms} of ${member}`)
    const next = (): void => {
      query(stage, member, random.exponential(stage.serviceMs))
      stage.time.setTimer(next, ms)
    }
    stage.time.setTimer(next, random.between(0, ms))
  }
}

/** So many at once, every so often; the first ones after `fromMs`. */
export function bursts(count: number, everyMs: number, fromMs: number): Load {
  return (stage, member) => {
    const random = new Random(stage.seed, `bursts of ${member}`)
    const next = (): void => {
      for (let i = 0; i < count; i++) query(stage, member, random.exponential(stage.serviceMs))
      stage.time.setTimer(next, everyMs)
    }
    stage.time.setTimer(next, fromMs)
  }
}
