import { at, generationOf, header, memberOf, stateOf, wordOf } from '../../../src/broker/layout.ts'
import type { Phase, Registers } from '../../../src/broker/registers.ts'
import { phases } from '../../../src/broker/settle.ts'
import { Broken, World } from './world.ts'
import type { Options, SimMember, SimPermit, State, Step } from './world.ts'

export interface Explored {
  readonly states: number
  /** Whether every reachable state was visited. */
  readonly complete: boolean
  /** What went wrong, and the steps to it. */
  readonly broken: string | undefined
}

// ── Copying ──────────────────────────────────────────────────────────────────────────────────────────────────────

function copyRegisters(r: Registers): Registers {
  return {
    ...r,
    shown: { ...r.shown },
    hand: r.hand.map((one) => ({ ...one })),
    // Whoever looks begins with a view of its own.
    view: usesView.has(r.at) ? { ...r.view, members: r.view.members.map((one) => ({ ...one })) } : r.view,
  }
}

const copyPermits = (list: SimPermit[]): SimPermit[] => (list.length === 0 ? [] : list.map((one) => ({ ...one })))
const copyPermit = (one: SimPermit | undefined): SimPermit | undefined => one && { ...one }

function copyMember(m: SimMember): SimMember {
  return {
    ...m,
    r: copyRegisters(m.r),
    leaving: m.leaving && { ...m.leaving },
    opening: copyPermits(m.opening),
    leased: copyPermits(m.leased),
    idle: copyPermits(m.idle),
    closing: copyPermits(m.closing),
    reaping: copyPermits(m.reaping),
    releasing: copyPermit(m.releasing),
    toClose: copyPermit(m.toClose),
    toPutBack: copyPermit(m.toPutBack),
  }
}

/** A copy in which one member may do its step; what that cannot change is shared. */
function copy(s: State, { event, member }: Step): State {
  return {
    ...s,
    words: s.words.slice(),
    members: s.members.map((m, i) => (i === member || event === 'die' ? copyMember(m) : m)),
    server: s.server.slice(),
    burials: s.burials.map((b) => ({ ...b })),
    resizing: s.resizing && { ...s.resizing },
  }
}

// ── Telling states apart ─────────────────────────────────────────────────────────────────────────────────────────

const phaseNumber = Object.fromEntries(Object.keys(phases).map((name, i) => [name, i])) as Record<Phase, number>
const resizeNumber = { 'make room': 1, limit: 2, asks: 3, call: 4, wake: 5, done: 6 }
const burialNumber = { look: 1, mark: 2, sweep: 3, clear: 4, vacate: 5, call: 6, wake: 7, done: 8 }
const usesView: ReadonlySet<Phase> = new Set<Phase>([
  ...(Object.keys(phases) as Phase[]).filter((name) => name.startsWith('look at ')),
  'wake asker',
  'wake donor',
  'retire',
  'trim',
])
const usesWord: ReadonlySet<Phase> = new Set<Phase>(['pick up', 'take', 'look up taker', 'reap', 'calm take'])
const usesCursor: ReadonlySet<Phase> = new Set<Phase>([...usesView, ...usesWord, 'scan', 'calm look'])
const usesTo: ReadonlySet<Phase> = new Set<Phase>(['grant', 'wake taker', 'check taker', 'wake asker', 'wake donor'])

const buffer = new Int32Array(4096)

/**
 * A number for a state, the same for states that behave the same: counters that are only ever compared (generations,
 * `asks`, wakes) count as differences, and what a phase does not read does not count.
 */
function keyOf(
  s: State,
  ledgerRow: (row: number, name: 'wake' | 'want' | 'since' | 'idle' | 'idleSince' | 'opening' | 'life') => number,
): number {
  let n = 0
  const put = (value: number): void => {
    buffer[n++] = value
  }
  const slots = s.server.length
  // A remembered word, as seen from the ledger's.
  const word = (slot: number, w: number): void => {
    put(stateOf(w) | (memberOf(w) << 3) | (((generationOf(w) - generationOf(s.words[wordOf(slot)]!)) & 0xffff) << 10))
  }
  const permits = (list: SimPermit[]): void => {
    put(-1 - list.length)
    for (const one of list) permit(one)
  }
  const permit = (one: SimPermit | undefined): void => {
    if (!one) return put(-9)
    put(one.slot | (one.forOthers ? 64 : 0) | (one.since === 0 ? 0 : 128) | (one.openedAt === 0 ? 0 : 256))
    word(one.slot, one.word)
  }
  for (let slot = 0; slot < slots; slot++) {
    const w = s.words[wordOf(slot)]!
    put(stateOf(w) | (memberOf(w) << 3))
    put(s.server[slot] === 0 ? 0 : 1 + ((generationOf(w) + 1 - s.server[slot]!) & 0xffff))
  }
  const asks = s.words[header.asks]!
  for (let i = 0; i < s.members.length; i++) {
    const m = s.members[i]!
    const { r } = m
    put(ledgerRow(i, 'life'))
    for (const name of ['want', 'since', 'idle', 'idleSince', 'opening'] as const) put(ledgerRow(i, name))
    put(m.dead ? 1 : m.left ? 2 : 0)
    if (m.dead || m.left) continue
    const moving = r.at !== 'rest'
    put(phaseNumber[r.at])
    // Only whether something has changed since matters.
    put((asks === r.seenAsks ? 1 : 0) | (asks === r.asks ? 2 : 0) | (ledgerRow(i, 'wake') === r.wake ? 4 : 0))
    put(
      (r.othersWant ? 1 : 0) | (r.freed ? 2 : 0) | (r.donorWoken ? 4 : 0) | (r.yields ? 8 : 0) | (m.unsettled ? 16 : 0),
    )
    put(
      (m.ticked ? 1 : 0) |
        (m.retry ? 2 : 0) |
        (moving && r.after === 'judge' ? 4 : 0) |
        (r.unsettled ? 8 : 0) |
        (moving && r.calm ? 16 : 0),
    )
    // With two there is nobody else whose turn it could be.
    if (s.members.length > 2) put(r.lastDonor + 1)
    put(r.limit | (r.slotsUsed << 8))
    put(m.acquires * 8 + m.waiters)
    put(m.since)
    put(r.hand.length)
    for (const one of r.hand) {
      put(one.slot | (one.used ? 64 : 0) | (one.forOthers ? 128 : 0))
      word(one.slot, one.word)
    }
    if (usesCursor.has(r.at)) put(r.cursor)
    if (usesWord.has(r.at)) word(r.cursor, r.word)
    if (usesTo.has(r.at)) put(r.to)
    if (usesView.has(r.at)) {
      put(r.view.supply)
      for (const one of r.view.members) {
        put((one.alive ? 1 : 0) | (one.want << 1) | (one.held << 6) | (one.granted << 12) | (one.idle << 18))
        put(one.waited)
        put(one.idled * 16 + one.opening)
      }
    }
    permits(m.opening)
    permits(m.leased)
    permits(m.idle)
    permits(m.closing)
    permits(m.reaping)
    permit(m.releasing)
    permit(m.toClose)
    permit(m.toPutBack)
    if (m.leaving) put(burialNumber[m.leaving.at] * 64 + m.leaving.cursor)
    if (m.leaving?.at === 'clear') word(m.leaving.cursor, m.leaving.word)
  }
  for (const b of s.burials) {
    put(b.row * 1024 + burialNumber[b.at] * 64 + b.cursor)
    if (b.at === 'clear') word(b.cursor, b.word)
  }
  put(s.words[header.limit]! | (s.words[header.slotsUsed]! << 8) | (s.resized << 16))
  if (s.resizing) put(resizeNumber[s.resizing.at] * 64 + s.resizing.cursor)
  put((s.late ? 1 : 0) | (s.died ? 2 : 0) | (s.aborts << 2) | (s.failures << 5) | (s.destroys << 8) | (s.deaths << 11))
  put(s.leaves | (s.stubborn << 3) | (s.joins << 6))
  let a = 0x811c9dc5
  let b = 0x2545f491
  for (let i = 0; i < n; i++) {
    a = Math.imul(a ^ buffer[i]!, 0x01000193)
    a ^= a >>> 15
    b = Math.imul(b + buffer[i]!, 0x9e3779b1)
    b ^= b >>> 13
  }
  return (a >>> 0) * 2 ** 21 + ((b >>> 0) & 0x1fffff)
}

// ── Searching ────────────────────────────────────────────────────────────────────────────────────────────────────

/** Visits all states that can be reached, up to `bound`; stops at the first that must not be. */
export function explore(options: Options, bound: number): Explored {
  const world = new World(options)
  const ids = new Map<number, number>()
  const parents: number[] = []
  const labels: string[] = []
  // Steps that threads take by themselves: a cycle of these alone is work without an end.
  const from: number[] = []
  const to: number[] = []
  const stack: { s: State; id: number }[] = []
  const start = world.start()
  const { slots, members } = options
  const ledger = { words: start.words, room: slots, rows: members, firstRow: wordOf(slots) }
  const key = (s: State): number => keyOf(s, (row, name) => s.words[at(ledger, row, name)]!)
  ids.set(key(start), 0)
  parents.push(-1)
  labels.push('start')
  stack.push({ s: start, id: 0 })
  const steps = { inner: [] as Step[], owed: [] as Step[], free: [] as Step[] }
  const pathTo = (id: number, last: string): string => {
    const path = [last]
    for (let i = id; i > 0; i = parents[i]!) path.push(labels[i]!)
    return path.toReversed().join('\n  ')
  }
  let complete = true
  for (let top = stack.pop(); top; top = stack.pop()) {
    const { s, id } = top
    world.steps(s, steps)
    if (steps.inner.length === 0 && steps.owed.length === 0) {
      try {
        world.checkQuiet(s)
      } catch (error) {
        if (!(error instanceof Broken)) throw error
        return { states: ids.size, complete: false, broken: `${error.message} after\n  ${pathTo(id, 'rest')}` }
      }
    }
    const all = [...steps.inner, ...steps.owed, ...steps.free]
    for (const [index, step] of all.entries()) {
      const next = copy(s, step)
      const label = `${step.member}: ${step.event}${step.event === 'step' ? ` ${s.members[step.member]!.r.at}` : ''}`
      try {
        world.take(next, step)
        world.check(next)
      } catch (error) {
        if (!(error instanceof Broken)) throw error
        return { states: ids.size, complete: false, broken: `${error.message} after\n  ${pathTo(id, label)}` }
      }
      const k = key(next)
      let known = ids.get(k)
      if (known === undefined) {
        if (ids.size >= bound) {
          complete = false
          continue
        }
        known = ids.size
        ids.set(k, known)
        parents.push(id)
        labels.push(label)
        stack.push({ s: next, id: known })
      }
      if (index < steps.inner.length) {
        from.push(id)
        to.push(known)
      }
    }
  }
  const cycle = findCycle(ids.size, from, to)
  return {
    states: ids.size,
    complete,
    broken: cycle === undefined ? undefined : `a cycle without progress after\n  ${pathTo(cycle, '…')}`,
  }
}

/** A node that is on a cycle, or behind one. */
function findCycle(size: number, from: readonly number[], to: readonly number[]): number | undefined {
  const into = new Int32Array(size)
  const first = new Int32Array(size + 1)
  for (const node of to) into[node]!++
  for (const node of from) first[node + 1]!++
  for (let i = 0; i < size; i++) first[i + 1]! += first[i]!
  const edges = new Int32Array(to.length)
  const fill = first.slice()
  for (let e = 0; e < from.length; e++) edges[fill[from[e]!]!++] = to[e]!
  const ready: number[] = []
  for (let i = 0; i < size; i++) if (into[i] === 0) ready.push(i)
  let done = 0
  for (let node = ready.pop(); node !== undefined; node = ready.pop()) {
    done++
    for (let e = first[node]!; e < first[node + 1]!; e++) if (--into[edges[e]!]! === 0) ready.push(edges[e]!)
  }
  if (done === size) return undefined
  for (let i = 0; i < size; i++) if (into[i]! > 0) return i
  return undefined
}

/** One way through, drawn at random; each thread may be delayed for long. Returns the steps that it took. */
export function walk(
  options: Options,
  random: () => number,
  most: number,
): { steps: number; broken: string | undefined } {
  const world = new World(options)
  const s = world.start()
  const steps = { inner: [] as Step[], owed: [] as Step[], free: [] as Step[] }
  const path: string[] = []
  let n = 0
  try {
    for (; n < most; n++) {
      world.steps(s, steps)
      if (steps.inner.length === 0 && steps.owed.length === 0) world.checkQuiet(s)
      const all = [...steps.inner, ...steps.owed, ...steps.free]
      if (all.length === 0) return { steps: n, broken: undefined }
      const quiet = steps.inner.length > 0 && random() < 0.5
      const pool = quiet ? steps.inner : all
      const step = pool[Math.floor(random() * pool.length)]!
      path.push(`${step.member}: ${step.event}${step.event === 'step' ? ` ${s.members[step.member]?.r.at}` : ''}`)
      world.take(s, step)
      world.check(s)
    }
  } catch (error) {
    if (!(error instanceof Broken)) throw error
    return { steps: n, broken: `${error.message} after\n  ${path.slice(-120).join('\n  ')}` }
  }
  return { steps: n, broken: 'it does not end' }
}
