import { burial, burialPhases } from '../../../src/broker/bury.ts'
import type { Burial } from '../../../src/broker/bury.ts'
import {
  at,
  elapsed,
  format,
  generationOf,
  header,
  limitOf,
  memberOf,
  read,
  state,
  stateOf,
  wordOf,
} from '../../../src/broker/layout.ts'
import type { Ledger } from '../../../src/broker/layout.ts'
import { close, isAlive, live, lifeOf, release as putBack, status, statusOf } from '../../../src/broker/ledger.ts'
import { registers } from '../../../src/broker/registers.ts'
import type { Host, Phase, PhaseOf, Registers } from '../../../src/broker/registers.ts'
import { resizePhases, resizing } from '../../../src/broker/resize.ts'
import type { Resizing } from '../../../src/broker/resize.ts'
import { isOutdated } from '../../../src/broker/release.ts'
import { phases as realPhases } from '../../../src/broker/settle.ts'

// A world of simulated pools on the real ledger and the real protocol, of which any thread can be stopped between any
// two accesses to shared memory. `steps` says what could happen next, `take` makes one of these happen.

export interface Options {
  readonly members: number
  readonly slots: number
  /** At first; default: all of them. */
  readonly limit?: number
  /** Limits that are set one after the other. */
  readonly resizes?: readonly number[]
  /** Of each member, or of one after the other. */
  readonly acquires: number | readonly number[]
  readonly max?: number
  /** Of all together. */
  readonly aborts?: number
  readonly failures?: number
  readonly destroys?: number
  readonly deaths?: number
  readonly leaves?: number
  /** New members that take the row of one that has gone. */
  readonly joins?: number
  /** Reapings that do not succeed. */
  readonly stubborn?: number
  /** Grants may be taken over as if they had been seen for long. */
  readonly takeOver?: boolean
  /** Settle after each event, needed or not, as a real pool does. */
  readonly eager?: boolean
  /** Time passes once: before, nothing is ripe. Otherwise everything always is. */
  readonly timed?: boolean
  /** Broken rules. */
  readonly mutation?: Partial<Mutation>
}

/** What a test may break, to see that the explorer notices. */
export interface Mutation {
  readonly phases: Partial<Record<Phase, PhaseOf>>
  readonly burial: Partial<Record<Burial['at'], (b: Burial, ledger: Ledger) => void>>
  readonly resize: Partial<Record<Resizing['at'], (r: Resizing, ledger: Ledger) => void>>
  readonly outdated: (r: Registers, host: Host) => boolean
}

export interface SimPermit {
  slot: number
  word: number
  forOthers: boolean
  /** Since when it is idle. */
  since: number
  openedAt: number
}

export interface SimMember {
  r: Registers
  life: number
  dead: boolean
  left: boolean
  leaving: Burial | undefined
  unsettled: boolean
  ticked: boolean
  retry: boolean
  acquires: number
  waiters: number
  since: number
  opening: SimPermit[]
  leased: SimPermit[]
  idle: SimPermit[]
  closing: SimPermit[]
  reaping: SimPermit[]
  /** Between two accesses of one event: the connection being released, or to be closed. */
  releasing: SimPermit | undefined
  toClose: SimPermit | undefined
  toPutBack: SimPermit | undefined
}

export interface State {
  words: Int32Array
  members: SimMember[]
  /** Generation + 1 of the session that the server counts for a slot. */
  server: number[]
  burials: Burial[]
  /** How many of the resizes have begun, and the one that is under way. */
  resized: number
  resizing: Resizing | undefined
  late: boolean
  aborts: number
  failures: number
  destroys: number
  deaths: number
  leaves: number
  joins: number
  stubborn: number
  died: boolean
}

export class Broken extends Error {}

/**
 * Phases whose place among the steps of others makes no difference, since they do not access anything, or only words
 * that never change here: they belong to the step before.
 */
function localPhases({ deaths = 0, leaves = 0, timed = false, resizes = [] }: Options): ReadonlySet<Phase> {
  return new Set<Phase>([
    ...(['rest', 'calm', 'place', 'decide', 'finish', 'judge', 'release', 'look', 'look at min'] as const),
    ...(deaths + leaves === 0 ? (['look at life', 'look up taker', 'check taker'] as const) : []),
    ...(resizes.length === 0 ? (['limit', 'slots used'] as const) : []),
    ...(timed ? [] : (['look at since', 'look at idle since'] as const)),
  ])
}

/** Whether a phase found nothing to do, and made no access. */
function passed(phase: Phase, next: Phase): boolean {
  return (
    (phase === 'show' && (next === 'look' || next === 'calm asks')) ||
    (phase === 'calm look' && next === 'limit') ||
    (phase === 'scan' && next === 'place') ||
    (phase === 'wake asker' && next === 'decide')
  )
}

export type Event =
  | 'step'
  | 'wake'
  | 'retry'
  | 'tick'
  | 'acquire'
  | 'abort'
  | 'release'
  | 'destroy'
  | 'open done'
  | 'open failed'
  | 'close done'
  | 'reaped'
  | 'not reaped'
  | 'die'
  | 'leave'
  | 'join'
  | 'notice'
  | 'time'
  | 'resize'
  | 'resizing'

export interface Step {
  readonly event: Event
  readonly member: number
}

const moveMs = 20

export class World {
  readonly options: Options
  readonly #phases: Readonly<Record<Phase, PhaseOf>>
  readonly #burial: typeof burialPhases
  readonly #resize: typeof resizePhases
  readonly #outdated: (r: Registers, host: Host) => boolean
  readonly #size: number
  readonly #local: ReadonlySet<Phase>
  #state!: State
  #ledger!: Ledger
  #i = 0
  readonly #host: Host

  constructor(options: Options) {
    this.options = options
    const { mutation } = options
    this.#phases = { ...realPhases, ...mutation?.phases }
    this.#burial = { ...burialPhases, ...mutation?.burial }
    this.#resize = { ...resizePhases, ...mutation?.resize }
    this.#outdated = mutation?.outdated ?? isOutdated
    this.#size = options.members
    this.#local = localPhases(options)
    this.#host = this.#makeHost()
  }

  start(): State {
    const { members, slots, limit = slots, acquires } = this.options
    const shared = read(format({ limit, room: slots, rows: members, thread: 0, nonce: [1, 2], moveCost: 0 }))!
    const words = new Int32Array(shared.words)
    const ledger = { ...shared, words }
    words[header.rowsUsed] = members
    const list: SimMember[] = []
    this.#ledger = ledger
    for (let i = 0; i < members; i++) {
      const m = this.#join(i)
      m.acquires = typeof acquires === 'number' ? acquires : acquires[i]!
      m.unsettled = false
      list.push(m)
    }
    const { aborts = 0, failures = 0, destroys = 0, deaths = 0, leaves = 0, joins = 0, stubborn = 0 } = this.options
    return {
      words,
      members: list,
      server: Array.from({ length: slots }, () => 0),
      burials: [],
      resized: 0,
      resizing: undefined,
      late: false,
      aborts,
      failures,
      destroys,
      deaths,
      leaves,
      joins,
      stubborn,
      died: false,
    }
  }

  /** A new member takes a row. */
  #join(row: number): SimMember {
    const ledger = this.#ledger
    live(ledger, row, lifeOf(ledger, row), status.enrolling)
    for (const name of ['want', 'since', 'idle', 'idleSince', 'opening'] as const)
      ledger.words[at(ledger, row, name)] = 0
    live(ledger, row, lifeOf(ledger, row), status.alive)
    return {
      r: registers(row, ledger.rows),
      life: lifeOf(ledger, row),
      dead: false,
      left: false,
      leaving: undefined,
      unsettled: true,
      ticked: false,
      retry: false,
      acquires: 1,
      waiters: 0,
      since: 0,
      opening: [],
      leased: [],
      idle: [],
      closing: [],
      reaping: [],
      releasing: undefined,
      toClose: undefined,
      toPutBack: undefined,
    }
  }

  #enter(s: State, i: number): SimMember {
    this.#state = s
    this.#i = i
    const { slots, members } = this.options
    this.#ledger = { words: s.words, room: slots, rows: members, firstRow: wordOf(slots) }
    return s.members[i]!
  }

  get #now(): number {
    return this.options.timed && !this.#state.late ? 0 : 100_000
  }

  #makeHost(): Host {
    // oxlint-disable-next-line typescript/no-this-alias, unicorn/no-this-assignment -- the getters below need it
    const world = this
    const me = (): SimMember => world.#state.members[world.#i]!
    return {
      now: () => world.#now,
      move: () => (world.options.timed ? moveMs : 0),
      min: 0,
      get waiting() {
        return me().waiters
      },
      get lacking() {
        const { waiters, opening, leased, idle, closing, dead, left, leaving } = me()
        if (dead || left || leaving) return 0
        const all = opening.length + leased.length + idle.length + closing.length
        return Math.max(0, Math.min(waiters - opening.length, (world.options.max ?? world.options.slots) - all))
      },
      get since() {
        return me().since
      },
      get idle() {
        return me().idle.length
      },
      get idleSince() {
        return me().idle[0]?.since ?? 0
      },
      get opening() {
        return me().opening.length
      },
      get releasing() {
        return me().releasing!.slot
      },
      get openFor() {
        return elapsed(me().releasing!.openedAt, world.#now)
      },
      isStuck: (_, word) => stateOf(word) === state.granted && world.options.takeOver === true,
      mayReap: () => true,
      open: (slot, word) => world.#open(slot, word),
      reap: (slot, word) => me().reaping.push({ slot, word, forOthers: false, since: 0, openedAt: 0 }),
      retire: () => {
        const permit = me().idle.shift()
        if (!permit) return false
        permit.forOthers = true
        world.#close(permit)
        return true
      },
      exceeds: (limit) => me().idle.some(({ slot }) => slot >= limit),
      trim: (limit) => {
        const [permit] = me().idle.splice(
          me().idle.findIndex(({ slot }) => slot >= limit),
          1,
        )
        permit!.forOthers = true
        world.#close(permit!)
      },
      hasRoom: true,
      mayTakeFree: () => true,
      heard: () => {},
      moved: () => {},
    }
  }

  #open(slot: number, word: number): void {
    const s = this.#state
    if (s.words[wordOf(slot)] !== word) throw new Broken(`member ${this.#i} opens with a permit that it does not hold`)
    if (s.server[slot] !== 0) throw new Broken(`two connections for slot ${slot}`)
    s.server[slot] = generationOf(word) + 1
    s.members[this.#i]!.opening.push({ slot, word, forOthers: false, since: 0, openedAt: 0 })
  }

  /** One access. */
  #close(permit: SimPermit): void {
    const word = close(this.#ledger, permit.slot, permit.word)
    if (word === undefined) throw new Broken(`member ${this.#i} closes with a permit that it does not hold`)
    permit.word = word
    this.#state.members[this.#i]!.closing.push(permit)
  }

  #ended(permit: SimPermit): void {
    const { server } = this.#state
    if (server[permit.slot] !== generationOf(permit.word) + 1) throw new Broken('a connection ends that is not there')
    server[permit.slot] = 0
  }

  // ── What could happen ──────────────────────────────────────────────────────────────────────────────────────────

  /** Steps that the threads take by themselves; those that the outside world owes them; those it may or may not take. */
  steps(s: State, into: { inner: Step[]; owed: Step[]; free: Step[] }): void {
    const { inner, owed, free } = into
    inner.length = 0
    owed.length = 0
    free.length = 0
    for (let i = 0; i < this.#size; i++) {
      const m = this.#enter(s, i)
      if (m.dead || m.left) {
        if (s.joins > 0 && statusOf(lifeOf(this.#ledger, i)) === status.vacant) free.push({ event: 'join', member: i })
        continue
      }
      if (s.deaths > 0) free.push({ event: 'die', member: i })
      if (m.r.at !== 'rest' || m.releasing || m.toClose || m.toPutBack || m.leaving || m.unsettled) {
        inner.push({ event: 'step', member: i })
        continue
      }
      if (s.words[at(this.#ledger, i, 'wake')] !== m.r.wake) inner.push({ event: 'wake', member: i })
      if (m.retry) inner.push({ event: 'retry', member: i })
      if (m.opening.length > 0) owed.push({ event: 'open done', member: i })
      if (m.closing.length > 0) owed.push({ event: 'close done', member: i })
      if (m.reaping.length > 0) owed.push({ event: 'reaped', member: i })
      if (m.opening.length > 0 && s.failures > 0) free.push({ event: 'open failed', member: i })
      if (m.reaping.length > 0 && s.stubborn > 0) free.push({ event: 'not reaped', member: i })
      if (m.acquires > 0) free.push({ event: 'acquire', member: i })
      if (m.waiters > 0 && s.aborts > 0) free.push({ event: 'abort', member: i })
      if (m.leased.length > 0) free.push({ event: 'release', member: i })
      if (m.leased.length > 0 && s.destroys > 0) free.push({ event: 'destroy', member: i })
      if (s.leaves > 0 && m.waiters + m.opening.length + m.leased.length + m.reaping.length === 0) {
        free.push({ event: 'leave', member: i })
      }
    }
    for (let i = 0; i < s.burials.length; i++) inner.push({ event: 'notice', member: i })
    const { resizes = [] } = this.options
    if (s.resizing) inner.push({ event: 'resizing', member: 0 })
    else if (s.resized < resizes.length) free.push({ event: 'resize', member: 0 })
    if (this.options.timed && !s.late) free.push({ event: 'time', member: 0 })
    // A safety tick is needed where somebody died, and to see what has ripened.
    if (inner.length === 0 && owed.length === 0 && (s.died || s.late)) {
      for (let i = 0; i < this.#size; i++) {
        const m = s.members[i]!
        if (!m.dead && !m.left && m.waiters > 0 && !m.ticked) inner.push({ event: 'tick', member: i })
      }
    }
  }

  // ── What happens ───────────────────────────────────────────────────────────────────────────────────────────────

  take(s: State, { event, member }: Step): void {
    if (event === 'notice') return this.#notice(s, member)
    const m = this.#enter(s, member)
    switch (event) {
      case 'step':
        return this.#step(m)
      case 'tick':
        m.ticked = true
        m.r.unsettled = true
        m.unsettled = true
        return this.#step(m)
      case 'wake':
        m.unsettled = true
        return this.#step(m)
      case 'retry':
        m.retry = false
        m.r.unsettled = true
        m.unsettled = true
        return this.#step(m)
      case 'resize':
        s.resizing = resizing(this.options.resizes![s.resized++]!)
        return
      case 'resizing': {
        this.#resize[s.resizing!.at](s.resizing!, this.#ledger)
        if (s.resizing!.at === 'done') s.resizing = undefined
        return
      }
      case 'time':
        s.late = true
        return
      case 'die':
        s.deaths--
        s.died = true
        m.dead = true
        s.burials.push(burial(member, m.life))
        for (const one of s.members) one.ticked = false
        return
      case 'acquire': {
        m.acquires--
        const permit = m.idle.pop()
        if (permit) m.leased.push(permit)
        else {
          if (m.waiters++ === 0) m.since = this.options.timed ? this.#now : 0
          m.ticked = false
        }
        return this.#after(m)
      }
      case 'abort':
        s.aborts--
        m.waiters--
        return this.#after(m)
      case 'release':
        m.releasing = m.leased.shift()!
        m.r.at = 'release'
        return this.#step(m)
      case 'destroy':
        s.destroys--
        this.#close(m.leased.shift()!)
        return this.#after(m)
      case 'open done': {
        const permit = m.opening.shift()!
        permit.openedAt = this.options.timed ? this.#now : 0
        permit.since = permit.openedAt
        this.#serveOrIdle(m, permit)
        return this.#after(m)
      }
      case 'open failed': {
        s.failures--
        const permit = m.opening.shift()!
        this.#ended(permit)
        m.r.hand.push({ slot: permit.slot, word: permit.word, used: true, forOthers: false })
        return this.#after(m)
      }
      case 'close done': {
        const permit = m.closing.shift()!
        this.#ended(permit)
        m.r.hand.push({ slot: permit.slot, word: permit.word, used: true, forOthers: permit.forOthers })
        return this.#after(m)
      }
      case 'reaped': {
        const permit = m.reaping.shift()!
        if (s.server[permit.slot] === generationOf(permit.word) + 1) s.server[permit.slot] = 0
        m.r.hand.push({ slot: permit.slot, word: permit.word, used: true, forOthers: false })
        m.r.unsettled = true
        return this.#after(m)
      }
      case 'not reaped':
        s.stubborn--
        m.toPutBack = m.reaping.shift()!
        return
      case 'join':
        s.joins--
        s.members[member] = this.#join(member)
        return
      case 'leave':
        s.leaves--
        for (let permit = m.idle.shift(); permit; permit = m.idle.shift()) this.#close(permit)
        m.leaving = burial(member, m.life)
        return
      default:
        throw new Error(`unknown event ${String(event)}`)
    }
  }

  #serveOrIdle(m: SimMember, permit: SimPermit): void {
    if (m.waiters > 0) {
      m.waiters--
      m.leased.push(permit)
    } else m.idle.push(permit)
  }

  /** What a pool does after every event. */
  #after(m: SimMember): void {
    if (this.options.eager || this.#outdated(m.r, this.#host)) m.unsettled = true
  }

  #step(m: SimMember): void {
    if (m.leaving) {
      this.#burial[m.leaving.at](m.leaving, this.#ledger)
      if (m.leaving.at === 'done') {
        m.leaving = undefined
        m.left = true
      }
      return
    }
    if (m.toClose) {
      const permit = m.toClose
      m.toClose = undefined
      this.#close(permit)
      m.unsettled = true
      return
    }
    if (m.toPutBack) {
      const { slot, word } = m.toPutBack
      m.toPutBack = undefined
      if (putBack(this.#ledger, slot, word) === undefined) throw new Broken('a reaper lost its permit')
      m.retry = true
      return
    }
    if (m.r.at === 'rest' && m.unsettled) {
      m.unsettled = false
      m.r.at = 'start'
    }
    const { r } = m
    const isResting = (): boolean => r.at === 'rest'
    for (let accesses = 0; !isResting();) {
      const phase = m.r.at
      if (accesses > 0 && !this.#local.has(phase)) break

      if (phase === 'look') Object.assign(m.r, { view: registers(0, this.#size).view })
      this.#phases[phase](m.r, this.#ledger, this.#host)
      if (!this.#local.has(phase) && !passed(phase, m.r.at)) accesses++
    }
    if (isResting() && m.releasing) {
      const permit = m.releasing
      m.releasing = undefined
      permit.since = this.options.timed ? this.#now : 0
      if (m.r.yields) {
        permit.forOthers = true
        m.toClose = permit
      } else {
        this.#serveOrIdle(m, permit)
        this.#after(m)
      }
    }
  }

  #notice(s: State, index: number): void {
    this.#enter(s, 0)
    const b = s.burials[index]!
    this.#burial[b.at](b, this.#ledger)
    if (b.at === 'done') s.burials.splice(index, 1)
  }

  // ── What must hold ─────────────────────────────────────────────────────────────────────────────────────────────

  /** In every state: each connection has a permit, and that permit names its owner. */
  check(s: State): void {
    for (let i = 0; i < this.#size; i++) {
      const m = s.members[i]!
      if (m.dead || m.left || m.leaving) continue
      for (const list of [m.opening, m.leased, m.idle]) for (const permit of list) this.#owns(s, i, permit, state.held)
      for (const permit of m.closing) this.#owns(s, i, permit, state.closing)
      for (const permit of m.reaping) this.#owns(s, i, permit, state.reaping)
    }
    for (let slot = 0; slot < s.server.length; slot++) {
      const word = s.words[wordOf(slot)]!
      if (s.server[slot] !== 0 && (stateOf(word) === state.free || stateOf(word) === state.granted)) {
        throw new Broken(`slot ${slot} has a connection on the server and is free`)
      }
    }
  }

  #owns(s: State, i: number, permit: SimPermit, expected: number): void {
    const word = s.words[wordOf(permit.slot)]!
    if (word !== permit.word || stateOf(word) !== expected || memberOf(word) !== i) {
      throw new Broken(`member ${i} does not own slot ${permit.slot}`)
    }
  }

  /** When nothing happens by itself any more: no permit is lost, and nobody waits for what could be had. */
  checkQuiet(s: State): void {
    this.#enter(s, 0)
    let alive = false
    let waiting = false
    for (let i = 0; i < this.#size; i++) {
      const m = s.members[i]!
      if (m.dead || m.left) continue
      alive = true
      if (this.#enter(s, i).waiters > 0 && this.#host.lacking > 0) waiting = true
      if (m.r.hand.length > 0) throw new Broken(`member ${i} rests with a permit in its hand`)
    }
    let idle = 0
    const limit = limitOf(this.#ledger)
    for (let slot = 0; slot < this.options.slots; slot++) {
      const word = s.words[wordOf(slot)]!
      const owner = s.members[memberOf(word)]!
      switch (stateOf(word)) {
        case state.free:
          if (waiting && slot < limit) throw new Broken(`slot ${slot} is free, and somebody waits`)
          break
        case state.held: {
          if (owner.dead || owner.left || !isAlive(this.#ledger, memberOf(word)))
            throw new Broken(`slot ${slot} is lost`)
          const list = [...owner.leased, ...owner.idle]
          if (!list.some((permit) => permit.slot === slot)) throw new Broken(`slot ${slot} is forgotten by its owner`)
          if (slot >= limit && owner.idle.some((permit) => permit.slot === slot)) {
            throw new Broken(`slot ${slot} is beyond the limit, and idle`)
          }
          if (owner.idle.some((permit) => permit.slot === slot && permit.since < this.#now)) idle++
          break
        }
        case state.limbo:
          if (alive) throw new Broken(`slot ${slot} is left in limbo`)
          break
        default:
          throw new Broken(`slot ${slot} is stuck in state ${stateOf(word)}`)
      }
    }
    if (waiting && idle > 0) throw new Broken('somebody waits beside an idle connection')
  }
}
