import { burialPhases } from '../../../src/broker/bury.ts'
import { header, generationOf, pack, state, stateOf, wordOf } from '../../../src/broker/layout.ts'
import { phases } from '../../../src/broker/settle.ts'
import type { Mutation, Options } from './world.ts'

/** A rule of the protocol, left out; and the smallest world in which its absence is known to show. */
export interface Broken {
  readonly rule: string
  readonly options: Options
  readonly mutation: Partial<Mutation>
}

const two: Options = { members: 2, slots: 1, acquires: 1 }

export const mutations: readonly Broken[] = [
  {
    rule: 'who asks for more lets `asks` grow',
    options: two,
    mutation: {
      phases: {
        ask(r) {
          r.cursor = 0
          r.at = 'scan'
        },
      },
    },
  },
  {
    rule: 'who has seen others wanting remembers it',
    options: { ...two, acquires: 2 },
    mutation: {
      phases: {
        finish(r, ledger, host) {
          phases.finish(r, ledger, host)
          r.othersWant = false
        },
      },
    },
  },
  {
    rule: 'a row never understates idleness',
    options: two,
    mutation: {
      phases: {
        release(r) {
          r.yields = false
          r.at = 'load asks'
        },
      },
      outdated: (r, host) => r.unsettled || r.hand.length > 0 || r.shown.want > 0 || host.lacking > 0,
    },
  },
  {
    rule: 'who has announced looks at the slots again',
    options: { ...two, acquires: 2, destroys: 1 },
    mutation: {
      phases: {
        ask(r, ledger) {
          if (Atomics.add(ledger.words, header.asks, 1) === r.asks) r.asks++
          r.after = 'decide'
          r.at = 'look'
        },
      },
    },
  },
  {
    rule: 'who has freed looks at the rows again',
    options: { ...two, max: 2, acquires: [2, 1], destroys: 1 },
    mutation: {
      phases: {
        free(r, ledger, host) {
          phases.free(r, ledger, host)
          r.freed = false
        },
      },
    },
  },
  {
    rule: 'a permit that its member needs is kept, or asked for again',
    options: { ...two, max: 2, acquires: 2, destroys: 1 },
    mutation: {
      phases: {
        decide(r, ledger, host) {
          phases.decide(r, ledger, host)
          if (r.at === 'renew') r.at = 'free'
        },
        free(r, ledger, host) {
          phases.free(r, ledger, host)
          r.after = 'decide'
          r.at = 'look'
        },
      },
    },
  },
  {
    rule: 'a grant is taken back if the taker is not alive',
    options: { ...two, leaves: 1, aborts: 1 },
    mutation: {
      phases: {
        'check taker'(r) {
          r.hand.shift()
          r.at = 'place'
        },
        'look up taker'(r) {
          r.cursor++
          r.at = 'scan'
        },
      },
    },
  },
  {
    rule: 'what a dead member had goes to limbo',
    options: { ...two, deaths: 1 },
    mutation: {
      burial: {
        clear(b, ledger) {
          const next = pack(state.free, 0, generationOf(b.word) + 1)
          Atomics.compareExchange(ledger.words, wordOf(b.cursor), b.word, next)
          b.cursor++
          b.at = 'sweep'
        },
      },
    },
  },
  {
    rule: 'who leaves looks for grants to itself',
    options: { ...two, leaves: 1, aborts: 1 },
    mutation: {
      burial: {
        sweep(b, ledger) {
          burialPhases.sweep(b, ledger)
          if (b.at === 'clear' && stateOf(b.word) === state.granted) {
            b.cursor++
            b.at = 'sweep'
          }
        },
      },
      phases: {
        'look up taker'(r) {
          r.cursor++
          r.at = 'scan'
        },
      },
    },
  },
  {
    rule: 'who lacks wakes a member with idle connections',
    options: two,
    mutation: {
      phases: {
        'wake donor'(r) {
          r.at = 'decide'
        },
      },
    },
  },
  {
    rule: 'a burial wakes the living',
    options: { ...two, deaths: 1 },
    mutation: {
      burial: {
        call(b) {
          b.at = 'done'
        },
      },
    },
  },
  {
    rule: 'who settles on a wake does so fully',
    options: { ...two, eager: true },
    mutation: {
      phases: {
        start(r, ledger, host) {
          phases.start(r, ledger, host)
          r.calm = !r.othersWant && r.hand.length === 0 && host.lacking === 0
        },
        asks(r) {
          if (r.calm) r.at = 'rest'
          else {
            r.cursor = 0
            r.at = 'scan'
          }
        },
      },
    },
  },
  {
    rule: 'an idle connection beyond a lowered limit closes',
    options: { members: 2, slots: 2, acquires: [2, 0], resizes: [1] },
    mutation: {
      phases: {
        decide(r, ledger, host) {
          phases.decide(r, ledger, host)
          if (r.at === 'trim') r.at = 'finish'
        },
      },
    },
  },
  {
    rule: 'a permit beyond a lowered limit is given to nobody',
    options: { members: 2, slots: 2, acquires: [3, 0], destroys: 2, resizes: [1] },
    mutation: {
      phases: {
        decide(r, ledger, host) {
          const { limit } = r
          r.limit = ledger.room
          phases.decide(r, ledger, host)
          r.limit = limit
        },
      },
    },
  },
  {
    rule: 'a permit beyond a lowered limit is not taken',
    options: { members: 2, slots: 2, max: 2, acquires: 2, resizes: [1] },
    mutation: {
      phases: {
        scan(r, ledger, host) {
          const { limit } = r
          r.limit = ledger.room
          phases.scan(r, ledger, host)
          r.limit = limit
        },
      },
    },
  },
  {
    rule: 'who changes the limit wakes all',
    options: { members: 2, slots: 2, limit: 1, acquires: 1, resizes: [2] },
    mutation: {
      resize: {
        call(r) {
          r.at = 'done'
        },
      },
    },
  },
  {
    rule: 'who has freed the short way looks whether somebody has begun to want',
    options: { ...two, destroys: 1 },
    mutation: {
      phases: {
        'calm asks'(r) {
          r.at = 'rest'
        },
      },
    },
  },
  {
    rule: 'who has freed the short way wakes those who began to want meanwhile',
    options: { members: 2, slots: 1, max: 2, acquires: [2, 1], destroys: 1 },
    mutation: {
      phases: {
        'calm free'(r, ledger, host) {
          phases['calm free'](r, ledger, host)
          r.freed = false
        },
      },
    },
  },
  {
    rule: 'the short way is not for those who have seen others wanting',
    options: { members: 2, slots: 1, max: 2, acquires: [2, 1], destroys: 1 },
    mutation: {
      phases: {
        start(r, ledger, host) {
          const { othersWant } = r
          r.othersWant = false
          phases.start(r, ledger, host)
          r.othersWant = othersWant
        },
      },
    },
  },
  {
    rule: 'the short way shows what is idle',
    options: { ...two, aborts: 1 },
    mutation: {
      phases: {
        calm(r, ledger, host) {
          phases.calm(r, ledger, host)
          if (r.at === 'show') r.at = 'rest'
        },
      },
    },
  },
  {
    rule: 'who is muted is woken, and says again what it wants',
    options: { members: 2, slots: 1, acquires: [2, 1], takeOver: true },
    mutation: {
      phases: {
        'own want'(r) {
          r.cursor = 0
          r.at = 'scan'
        },
      },
    },
  },
]
