import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  K,
  R,
  Z,
  donorToWake,
  f,
  isShort,
  nextOwed,
  nextRipening,
  nobody,
  owed,
  owedOfIdle,
  owedOnRelease,
  owedOnReturn,
} from '../../src/broker/allocation.ts'
import type { MemberView, View } from '../../src/broker/allocation.ts'

const M = 20

function member(some: Partial<MemberView> = {}): MemberView {
  return { alive: true, want: 0, waited: 0, held: 0, granted: 0, opening: 0, idle: 0, idled: 0, min: 0, ...some }
}

function view(members: Partial<MemberView>[], supply = 0): View {
  return { members: members.map(member), size: members.length, supply, move: M }
}

describe('owedOnRelease()', () => {
  const old = K * M

  test('keeps a connection for K moves', () => {
    const v = view([{ held: 5 }, { want: 1, waited: 10_000 }])
    expect(owedOnRelease(v, 0, 0, old - 0.1)).toBe(nobody)
    expect(owedOnRelease(v, 0, 0, old)).toBe(1)
  })

  test('goes first to the one without any that waits longest, if longer than my head or Z moves', () => {
    const v = view([{ held: 2 }, { want: 1, waited: 30 }, { want: 1, waited: 50 }, { want: 1, waited: 300, held: 1 }])
    expect(owedOnRelease(v, 0, 49, old)).toBe(2)
    expect(owedOnRelease(v, 0, 50, old)).toBe(nobody)
    v.members[2]!.waited = Z * M + 0.1
    expect(owedOnRelease(v, 0, 1_000, old)).toBe(2)
  })

  test('goes to one with two fewer that waits longer', () => {
    const v = view([{ held: 3 }, { want: 1, waited: 30, held: 1 }])
    expect(owedOnRelease(v, 0, 29, old)).toBe(1)
    expect(owedOnRelease(v, 0, 30, old)).toBe(nobody)
    v.members[0]!.held = 2
    expect(owedOnRelease(v, 0, 29, old)).toBe(nobody)
  })

  test('goes to one that waits f times longer and K moves more, however much it has', () => {
    const v = view([{ held: 2 }, { want: 1, waited: f * 30 + K * M, held: 9 }])
    expect(owedOnRelease(v, 0, 30, old)).toBe(nobody)
    expect(owedOnRelease(v, 0, 29, old)).toBe(1)
  })

  test('keeps the last one for those who wait for it, whoever else has one', () => {
    const v = view([{ held: 1 }, { want: 1, waited: 10_000, held: 1 }])
    expect(owedOnRelease(v, 0, 1, R * M)).toBe(nobody)
    expect(owedOnRelease(v, 0, 0, R * M)).toBe(1)
    v.members[1]!.held = 0
    expect(owedOnRelease(v, 0, 1, old)).toBe(1)
  })

  test('takes turns after R moves with one that has half as many and waits twice as long', () => {
    const v = view([{ held: 2 }, { want: 1, waited: 60, held: 1 }])
    expect(owedOnRelease(v, 0, 29, R * M - 0.1)).toBe(nobody)
    expect(owedOnRelease(v, 0, 29, R * M)).toBe(1)
    expect(owedOnRelease(v, 0, 30, R * M)).toBe(nobody)
    v.members[0]!.held = 3
    v.members[1]!.held = 2
    expect(owedOnRelease(v, 0, 29, R * M)).toBe(nobody)
  })

  test('sends nothing to one that has a permit on its way, from here or from elsewhere', () => {
    for (const under of [
      { granted: 1, held: 1, want: 2 },
      { opening: 1, held: 1, want: 2 },
    ]) {
      expect(owedOnRelease(view([{ held: 9 }, { waited: 10_000, ...under }]), 0, 0, old)).toBe(nobody)
    }
    expect(owedOnRelease(view([{ held: 9 }, { waited: 10_000, want: 1 }], 1), 0, 0, old)).toBe(nobody)
    expect(
      owedOnRelease(view([{ held: 9 }, { waited: 10_000, want: 1 }, { waited: 9_000, want: 1 }], 1), 0, 0, old),
    ).toBe(2)
  })
})

describe('owedOfIdle()', () => {
  test('gives after one move, the last one after K moves, unless the asker has none', () => {
    const asker = { want: 2, waited: 5, held: 1 }
    expect(owedOfIdle(view([{ held: 2, idle: 1, idled: M }, asker]), 0)).toBe(1)
    expect(owedOfIdle(view([{ held: 2, idle: 1, idled: M - 1 }, asker]), 0)).toBe(nobody)
    expect(owedOfIdle(view([{ held: 1, idle: 1, idled: K * M - 1 }, asker]), 0)).toBe(nobody)
    expect(owedOfIdle(view([{ held: 1, idle: 1, idled: K * M }, asker]), 0)).toBe(1)
    expect(
      owedOfIdle(
        view([
          { held: 1, idle: 1, idled: M },
          { ...asker, held: 0 },
        ]),
        0,
      ),
    ).toBe(1)
  })

  test('has one that lacks a single one, and has as many, wait for its own as long as a move costs', () => {
    const gives = (donor: number, asker: Partial<MemberView>): boolean =>
      owedOfIdle(
        view([
          { held: donor, idle: 1, idled: K * M },
          { want: 1, waited: M - 1, held: 2, ...asker },
        ]),
        0,
      ) === 1
    expect(gives(2, {})).toBe(false)
    expect(gives(3, {})).toBe(false)
    expect(gives(2, { waited: M })).toBe(true)
    // Not where more than one is lacking, where it would have no more than the other, or has none, or for the last one.
    expect(gives(2, { want: 2 })).toBe(true)
    expect(gives(4, {})).toBe(true)
    expect(gives(2, { held: 0 })).toBe(true)
    expect(gives(1, {})).toBe(true)
    const v = view([
      { want: 1, waited: 4, held: 2 },
      { held: 2, idle: 1, idled: 30 },
    ])
    expect(donorToWake(v, 0)).toBe(nobody)
    expect(nextRipening(v, 0)).toBe(M - 4)
  })

  test('serves who has fewest, then who has waited longest', () => {
    const idle = { held: 3, idle: 2, idled: 10 * M }
    expect(owedOfIdle(view([idle, { want: 1, waited: 9, held: 2 }, { want: 1, waited: 1, held: 1 }]), 0)).toBe(2)
    expect(owedOfIdle(view([idle, { want: 1, waited: 1, held: 1 }, { want: 1, waited: 9, held: 1 }]), 0)).toBe(2)
  })

  test('never takes min, and nothing that is on its way anyway', () => {
    const asker = { want: 1, waited: 5 }
    expect(owedOfIdle(view([{ held: 2, idle: 2, idled: 10 * M, min: 2 }, asker]), 0)).toBe(nobody)
    expect(owedOfIdle(view([{ held: 2, idle: 2, idled: 10 * M }, asker], 1), 0)).toBe(nobody)
  })
})

describe('donorToWake() and nextRipening()', () => {
  test('wake those with a ripe one in turn, and look again when the next ripens', () => {
    const v = view([
      { want: 1, waited: 5 },
      { held: 3, idle: 1, idled: 30 },
      { held: 3, idle: 2, idled: 25 },
      { held: 4, idle: 4, idled: 15 },
      { held: 9, idle: 9, idled: 99, min: 9 },
    ])
    expect(donorToWake(v, 0)).toBe(1)
    expect(donorToWake(v, 0, 1)).toBe(2)
    expect(donorToWake(v, 0, 2)).toBe(1)
    expect(donorToWake(v, 0, 4)).toBe(1)
    expect(nextRipening(v, 0)).toBe(0)
    for (const one of [1, 2]) v.members[one]!.idled = 3
    expect(donorToWake(v, 0)).toBe(nobody)
    expect(nextRipening(v, 0)).toBe(5)
  })

  test('wake nobody while enough is on its way', () => {
    expect(donorToWake(view([{ want: 1 }, { held: 3, idle: 1, idled: 30 }], 1), 0)).toBe(nobody)
  })
})

describe('owedOnReturn()', () => {
  test('keeps what I need, unless I would owe it on a release', () => {
    expect(
      owedOnReturn(
        view([
          { held: 3, waited: 10, want: 1 },
          { want: 1, waited: 5 },
        ]),
        0,
        1,
      ),
    ).toBe(0)
    expect(
      owedOnReturn(
        view([
          { held: 3, waited: 10, want: 1 },
          { want: 1, waited: 15 },
        ]),
        0,
        1,
      ),
    ).toBe(1)
    expect(owedOnReturn(view([{ held: 3 }, { want: 1, waited: 5 }]), 0, 0)).toBe(1)
    expect(owedOnReturn(view([{ held: 3 }, {}]), 0, 0)).toBe(nobody)
  })
})

// ── Properties ───────────────────────────────────────────────────────────────────────────────────────────────────

const seed = Number(process.env['MILLPOND_SEED'] ?? Math.trunc(Math.random() * 2 ** 31))
const parameters = { seed, numRuns: 3_000 }

/** Mostly 0: else hardly anybody would ever be owed anything. */
function few(most: number): fc.Arbitrary<number> {
  return fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(most) })
}

const anyMember = fc
  .record({
    alive: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.boolean() }),
    want: fc.nat(4),
    waited: fc.nat(2_000),
    held: fc.nat(6),
    granted: few(2),
    opening: few(2),
    idle: fc.nat(4),
    idled: fc.nat(1_000),
    min: few(3),
  })
  .filter((one) => one.held >= one.granted)
const anyView = fc.record({
  members: fc.array(anyMember, { minLength: 1, maxLength: 6 }),
  supply: few(3),
  move: fc.constantFrom(0, 1, M),
})
const viewOf = (raw: { members: MemberView[]; supply: number; move: number }): View => ({
  ...raw,
  members: raw.members.map((one, i) => ({ ...one, alive: one.alive || i === 0 })),
  size: raw.members.length,
})

describe(`every decision (seed ${seed})`, () => {
  test('is for one who is alive, wants more than is on its way, and is not me', () => {
    fc.assert(
      fc.property(anyView, fc.nat(2_000), fc.nat(1_000), (raw, waited, open) => {
        const v = viewOf(raw)
        for (const to of [nextOwed(v, 0), owedOnRelease(v, 0, waited, open), owedOfIdle(v, 0)]) {
          if (to === nobody) continue
          expect(to).not.toBe(0)
          const { alive, want, granted } = v.members[to]!
          expect(alive && want > granted).toBe(true)
        }
      }),
      parameters,
    )
  })

  test('gives only what is there, and never min', () => {
    fc.assert(
      fc.property(anyView, fc.nat(2_000), (raw, waited) => {
        const v = viewOf(raw)
        const mine = v.members[0]!
        if (owedOfIdle(v, 0) !== nobody) {
          expect(mine.idle).toBeGreaterThan(0)
          expect(mine.held).toBeGreaterThan(mine.min)
          expect(isShort(v)).toBe(true)
        }
        if (owedOnRelease(v, 0, waited, Infinity) !== nobody) expect(mine.held).toBeGreaterThan(mine.min)
        const woken = donorToWake(v, 0)
        if (woken !== nobody) {
          expect(v.members[woken]!.alive).toBe(true)
          expect(v.members[woken]!.idle).toBeGreaterThan(0)
          expect(v.members[woken]!.held).toBeGreaterThan(v.members[woken]!.min)
        }
      }),
      parameters,
    )
  })

  test('leaves nobody out while a permit has no owner', () => {
    fc.assert(
      fc.property(anyView, (raw) => {
        const v = viewOf(raw)
        const anyOwed = v.members.some((one, i) => i > 0 && owed(one) > 0)
        expect(nextOwed(v, 0) !== nobody).toBe(anyOwed)
      }),
      parameters,
    )
  })

  test('counts what is on its way: a release adds nothing to it', () => {
    fc.assert(
      fc.property(anyView, fc.nat(2_000), (raw, waited) => {
        const v = viewOf(raw)
        const to = owedOnRelease(v, 0, waited, Infinity)
        if (to !== nobody) expect(v.members[to]!.granted + v.members[to]!.opening).toBe(0)
        // Enough for all: nothing is owed to anybody, and nothing idle either.
        v.supply = v.members.reduce((sum, one) => sum + owed(one), 0)
        expect(owedOnRelease(v, 0, waited, Infinity)).toBe(nobody)
        expect(owedOfIdle(v, 0)).toBe(nobody)
        expect(donorToWake(v, 0)).toBe(nobody)
      }),
      parameters,
    )
  })

  test('keeps a connection for K moves, whatever the others need', () => {
    fc.assert(
      fc.property(anyView, fc.nat(2_000), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (...args) => {
        const [raw, waited, part] = args
        const v = viewOf(raw)
        expect(owedOnRelease(v, 0, waited, part * K * v.move - 1e-9)).toBe(nobody)
      }),
      parameters,
    )
  })

  test('does not reverse at once', () => {
    let moves = 0
    fc.assert(
      fc.property(anyView, fc.nat(2_000), (raw, waited) => {
        const v = viewOf(raw)
        const to = owedOnRelease(v, 0, waited, Infinity)
        if (to === nobody) return
        moves++
        // The permit arrives after one move; until then everybody has waited on.
        const [mine, theirs] = [v.members[0]!, v.members[to]!]
        mine.held--
        mine.want++
        mine.waited = waited + v.move
        mine.granted = 0
        mine.opening = 0
        theirs.held++
        theirs.want--
        theirs.waited += v.move
        // The connection itself stays, whoever waits ...
        if (v.move > 0) expect(owedOnRelease(v, to, theirs.waited, v.move)).toBe(nobody)
        // ... and no older one comes back in its place.
        if (theirs.held > 1) expect(owedOnRelease(v, to, theirs.waited, Infinity)).not.toBe(0)
      }),
      parameters,
    )
    expect(moves).toBeGreaterThan(300)
  })
})
