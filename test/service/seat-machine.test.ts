import { describe, expect, test } from 'vitest'
import { SeatMachine } from '../../src/service/seat-machine.ts'
import { randomFrom } from '../pool/cases/support.ts'

const seed = Number(process.env['SEED'] ?? Math.trunc(Math.random() * 2 ** 31))

interface Life {
  readonly name: string
  readonly startedAt: number
}

interface Timer {
  readonly at: number
  readonly callback: () => void
}

const end = (why = 'exit code 1'): { why: string; cause: unknown } => ({ why, cause: new Error(why) })

/** A seat whose threads are names; what it asks for is written down. */
class Place {
  readonly said: string[] = []
  readonly living = new Set<Life>()
  readonly timers = new Set<Timer>()
  readonly machine: SeatMachine<Life>
  now = 0
  #count = 0

  constructor(maxRestarts = 10) {
    this.machine = new SeatMachine<Life>(
      {
        now: () => this.now,
        after: (ms, callback) => {
          const timer = { at: this.now + ms, callback }
          this.timers.add(timer)
          return () => this.timers.delete(timer)
        },
        begin: () => {
          const life = { name: `life ${++this.#count}`, startedAt: this.now }
          this.living.add(life)
          this.said.push(`begin ${life.name}`)
          return life
        },
        keep: (life, connections) => this.said.push(`${life.name} keeps ${connections}`),
        retire: (life) => this.said.push(`retire ${life.name}`),
        changed: () => {},
        replaced: (life, former) => this.said.push(`${life.name} replaces ${former?.name}`),
        restarts: (why, pauseMs) => this.said.push(`restart in ${pauseMs} (${why})`),
        givenUp: (why, times) => this.said.push(`given up after ${times} (${why})`),
      },
      maxRestarts,
    )
  }

  /** What has been asked for since the last call. */
  news(): string[] {
    return this.said.splice(0)
  }

  /** Begins it; what comes of it is said. */
  wait(on: 'start' | 'reload'): void {
    this.machine[on]((failure) =>
      this.said.push(failure ? `no ${on}: ${(failure.error as Error).message}` : `${on} done`),
    )
  }

  pass(ms: number): void {
    const until = this.now + ms
    for (;;) {
      const [next] = [...this.timers].filter(({ at }) => at <= until).toSorted((a, b) => a.at - b.at)
      if (!next) break
      this.now = next.at
      this.timers.delete(next)
      next.callback()
    }
    this.now = until
  }

  end(life: Life, why?: string): void {
    this.living.delete(life)
    this.machine.ended(life, end(why))
  }

  life(n: number): Life {
    const found = [...this.living].find(({ name }) => name === `life ${n}`)
    if (!found) throw new Error(`there is no life ${n}`)
    return found
  }
}

const stopped = (place: Place): string[] => place.machine.stop().map(({ name }) => name)

/** With its first life, which is ready. */
function running(maxRestarts?: number): Place {
  const place = new Place(maxRestarts)
  place.wait('start')
  place.machine.ready(place.life(1))
  expect(place.news()).toEqual(['begin life 1', 'start done'])
  return place
}

/** In a reload, at that stage. */
function reloading(stage: 'room' | 'next' | 'leaving', maxRestarts?: number): Place {
  const place = running(maxRestarts)
  place.wait('reload')
  if (stage !== 'room') place.machine.kept(place.life(1))
  if (stage === 'leaving') place.machine.ready(place.life(2))
  place.news()
  return place
}

describe('SeatMachine', () => {
  test('begins another life at once, the next ones after a pause that doubles, until there were too many within a minute', () => {
    const place = running(3)
    place.end(place.life(1))
    expect(place.news()).toEqual(['restart in 0 (exit code 1)'])
    place.pass(0)
    place.end(place.life(2))
    expect(place.news()).toEqual(['begin life 2', 'restart in 100 (exit code 1)'])
    place.pass(99)
    expect(place.news()).toEqual([])
    place.pass(1)
    place.end(place.life(3))
    expect(place.news()).toEqual(['begin life 3', 'restart in 200 (exit code 1)'])
    place.pass(200)
    place.end(place.life(4))
    expect(place.news()).toEqual(['begin life 4', 'given up after 4 (exit code 1)'])
    expect([place.machine.state, place.machine.restarts, place.timers.size]).toEqual(['failed', 3, 0])
  })

  test('never waits longer than 5 s, and not at all after a life of more than 10 s', () => {
    const place = running(Infinity)
    const pauses: string[] = []
    const livesFor = (ms: number): void => {
      place.pass(ms)
      place.end([...place.living][0] as Life)
      const said = place.news().find((what) => what.startsWith('restart')) ?? ''
      pauses.push(said.split(' ')[2] as string)
      place.pass(5_000)
    }
    for (let i = 0; i < 9; i++) livesFor(0)
    livesFor(10_001)
    livesFor(0)
    expect(pauses.join(' ')).toBe('0 100 200 400 800 1600 3200 5000 5000 0 100')
  })

  test('forgets what was more than a minute ago, and lives that were long', () => {
    const place = running(1)
    for (let n = 1; n < 5; n++) {
      place.pass(61_000)
      place.end(place.life(n))
      place.pass(100)
      place.machine.ready(place.life(n + 1))
      expect(place.news()).toEqual(['restart in 0 (exit code 1)', `begin life ${n + 1}`])
    }
  })

  test('tells once what became of the first life, and begins no other one', () => {
    const place = new Place()
    place.wait('start')
    place.machine.failed(place.life(1), new Error('no'))
    place.end(place.life(1))
    expect(place.news()).toEqual(['begin life 1', 'no start: no'])
    expect([place.machine.state, place.timers.size]).toEqual(['starting', 0])
  })
})

describe('SeatMachine.reload()', () => {
  test('makes room, begins the next life, and retires the former one when that is ready', () => {
    const place = running()
    place.wait('reload')
    expect(place.news()).toEqual(['life 1 keeps none'])
    place.machine.kept(place.life(1))
    expect(place.news()).toEqual(['begin life 2'])
    place.machine.ready(place.life(2))
    expect(place.news()).toEqual(['life 2 replaces life 1', 'retire life 1'])
    place.end(place.life(1))
    expect(place.news()).toEqual(['reload done'])
    expect(place.timers.size).toBe(0)
  })

  test('waits a second for one that does not answer, and hears what it says too late as nothing', () => {
    const place = reloading('room')
    place.pass(999)
    expect(place.news()).toEqual([])
    place.pass(1)
    expect(place.news()).toEqual(['begin life 2'])
    place.machine.kept(place.life(1))
    expect(place.news()).toEqual([])
  })

  test('of a life that ends while it makes room begins one other life, at once', () => {
    const place = reloading('room')
    place.end(place.life(1))
    expect(place.news()).toEqual(['restart in 0 (exit code 1)', 'begin life 2'])
    expect(place.machine.state).toBe('restarting')
    place.pass(60_000)
    place.machine.ready(place.life(2))
    expect(place.news()).toEqual(['life 2 replaces undefined', 'reload done'])
    expect([place.machine.state, place.timers.size]).toEqual(['ready', 0])
  })

  test('of a life that ends while the next one begins does not begin a third', () => {
    const place = reloading('next', 0)
    place.end(place.life(1))
    expect(place.news()).toEqual(['restart in 0 (exit code 1)'])
    place.pass(60_000)
    expect(place.news()).toEqual([])
    place.machine.ready(place.life(2))
    expect(place.news()).toEqual(['life 2 replaces undefined', 'reload done'])
  })

  test('that fails gives the current life its connections back only when the other one has ended', () => {
    const place = reloading('next')
    place.machine.failed(place.life(2), new Error('no life 2'))
    expect(place.news()).toEqual([])
    place.end(place.life(2))
    expect(place.news()).toEqual(['life 1 keeps min', 'no reload: no life 2'])
    expect([place.machine.state, place.machine.current?.name]).toEqual(['ready', 'life 1'])
  })

  test('that fails when the current life has ended, too, goes on as after any end', () => {
    const place = reloading('next')
    place.end(place.life(1))
    place.machine.failed(place.life(2), new Error('no life 2'))
    place.end(place.life(2))
    expect(place.news()).toEqual(['restart in 0 (exit code 1)', 'restart in 100 (exit code 1)', 'no reload: no life 2'])
    place.pass(100)
    expect(place.news()).toEqual(['begin life 3'])
  })

  test('takes the place of a restart that was to come', () => {
    const place = running()
    place.end(place.life(1))
    place.wait('reload')
    place.pass(60_000)
    expect(place.news()).toEqual(['restart in 0 (exit code 1)', 'begin life 2'])
  })

  test('brings back a seat that was given up, which stays so if it fails', () => {
    const place = running(0)
    place.end(place.life(1))
    place.wait('reload')
    place.end(place.life(2), 'again')
    expect(place.machine.state).toBe('failed')
    place.wait('reload')
    place.machine.ready(place.life(3))
    expect(place.machine.state).toBe('ready')
    expect(place.news()).toEqual([
      'given up after 1 (exit code 1)',
      'begin life 2',
      'no reload: again',
      'begin life 3',
      'life 3 replaces undefined',
      'reload done',
    ])
  })

  test('waits for the leaving life, also when its successor ends meanwhile and another one follows', () => {
    const place = reloading('leaving')
    place.end(place.life(2))
    place.pass(100)
    place.machine.ready(place.life(3))
    expect(place.news()).toEqual(['restart in 0 (exit code 1)', 'begin life 3'])
    place.end(place.life(1))
    expect(place.news()).toEqual(['reload done'])
    expect(place.machine.current?.name).toBe('life 3')
  })
})

describe('SeatMachine.stop()', () => {
  test('names every life there is, at each stage of a reload, and ends the reload', () => {
    const room = reloading('room')
    expect(stopped(room)).toEqual(['life 1'])
    expect(room.news()).toEqual(['reload done'])

    const next = reloading('next')
    expect(stopped(next)).toEqual(['life 1', 'life 2'])
    next.machine.ready(next.life(2))
    next.end(next.life(2))
    next.end(next.life(1))
    expect(next.news()).toEqual(['reload done'])

    const leaving = reloading('leaving')
    expect(stopped(leaving)).toEqual(['life 2', 'life 1'])
    leaving.end(leaving.life(1))
    expect(leaving.news()).toEqual(['reload done'])

    for (const place of [room, next, leaving]) expect(place.timers.size).toBe(0)
  })

  test('takes a restart back', () => {
    const place = running()
    place.end(place.life(1))
    expect(stopped(place)).toEqual([])
    expect(place.timers.size).toBe(0)
  })
})

test(`SeatMachine forgets no life and never has more than two, whatever happens (SEED=${seed})`, () => {
  const random = randomFrom(seed)
  const pick = <T>(from: readonly T[]): T | undefined => from[Math.floor(random() * from.length)]
  for (let run = 0; run < 300; run++) {
    const place = new Place(pick([0, 2, Infinity]))
    const { machine } = place
    const [ready, failed, told] = [new Set<Life>(), new Set<Life>(), new Set<Life>()]
    let reloads = 0
    let isStopped = false
    let isStarted = false
    const steps: string[] = []
    const events: Record<string, (life: Life) => void> = {
      ready: (life) => {
        if (ready.has(life) || failed.has(life)) return
        ready.add(life)
        machine.ready(life)
      },
      failed: (life) => {
        if (ready.has(life) || failed.has(life)) return
        failed.add(life)
        machine.failed(life, new Error('failed'))
      },
      kept: (life) => machine.kept(life),
      ended: (life) => {
        if (!ready.has(life)) events['failed']?.(life)
        place.end(life)
      },
      pass: () => place.pass(pick([1, 100, 1_000, 5_000, 20_000]) ?? 0),
      reload: () => {
        // As a service does it: one at a time, and only once it runs.
        if (!isStarted || reloads > 0) return
        reloads++
        machine.reload(() => reloads--)
      },
      stop: () => {
        if (!isStarted || isStopped || random() > 0.1) return
        isStopped = true
        for (const life of machine.stop()) told.add(life)
      },
    }
    const check = (): void => {
      const where = `run ${run}: ${steps.join(', ')}`
      expect(() => machine.assertInvariants(), where).not.toThrow()
      const roles = [machine.current, machine.next, machine.leaving].filter((life) => life !== undefined)
      expect(new Set(roles), where).toEqual(place.living)
      expect(roles.length, where).toBeLessThanOrEqual(2)
      if (isStopped) for (const life of place.living) expect(told, where).toContain(life)
    }
    machine.start((failure) => (isStarted = failure === undefined))
    for (let step = 0; step < 60; step++) {
      const event = pick(Object.keys(events)) ?? 'pass'
      const life = pick([...place.living])
      if (!life && ['ready', 'failed', 'kept', 'ended'].includes(event)) continue
      steps.push(`${event} ${life?.name ?? ''}`)
      events[event]?.(life as Life)
      check()
    }
    if (!isStarted) continue
    // Left alone, whatever it waits for comes: it serves again, or was given up, or ends.
    for (let turn = 0; turn < 5; turn++) {
      for (const life of [machine.current, machine.next]) if (life) events[failed.has(life) ? 'ended' : 'ready']?.(life)
      if (machine.leaving) place.end(machine.leaving)
      if (isStopped) for (const life of place.living) place.end(life)
      place.pass(10_000)
      check()
    }
    expect(reloads, steps.join(', ')).toBe(0)
    if (isStopped) expect(place.living.size).toBe(0)
    else expect(['ready', 'failed'], steps.join(', ')).toContain(machine.state)
  }
})
