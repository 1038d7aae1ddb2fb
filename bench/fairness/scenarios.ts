import { bursts, clients, every, leases, poisson } from './loads.ts'
import type { Load } from './loads.ts'

/** What some members ask for under one limit. */
export interface Scenario {
  readonly name: string
  readonly says: string
  readonly limit: number
  readonly loads: readonly Load[]
  /** Members that should get the same. */
  readonly equals?: readonly number[]
  /** Members whose waits are looked at. Default: all. */
  readonly watched?: readonly number[]
}

/** Times of the server, in ms. */
export interface Setting {
  readonly name: string
  readonly serviceMs: number
  readonly connectMs: number
}

export const settings: readonly Setting[] = [
  { name: 'S1 C5', serviceMs: 1, connectMs: 5 },
  { name: 'S1 C20', serviceMs: 1, connectMs: 20 },
  { name: 'S20 C5', serviceMs: 20, connectMs: 5 },
  { name: 'S20 C20', serviceMs: 20, connectMs: 20 },
]

function same(count: number, load: Load): Load[] {
  return Array.from({ length: count }, () => load)
}

function all(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

function even(name: string, members: number, limit: number, count: number): Scenario {
  const says = `${members} members, limit ${limit}, ${count} clients each`
  return { name, says, limit, loads: same(members, clients(count)), equals: all(members) }
}

/** The share of a member in a load that is Zipf's over all of them. */
function zipf(member: number, members: number): number {
  let sum = 0
  for (let i = 1; i <= members; i++) sum += 1 / i
  return 1 / (member + 1) / sum
}

const light = [1, 2, 3]

export const scenarios: readonly Scenario[] = [
  even('A8', 4, 8, 16),
  even('A10', 4, 10, 16),
  {
    name: 'B',
    says: '4 members, limit 10: 64 clients on one; one query every 2 s on each of three',
    limit: 10,
    loads: [clients(64), ...same(3, every(2_000))],
    watched: light,
  },
  {
    name: 'C',
    says: '4 members, limit 10: 64 clients on one; 100 queries a second on each of three',
    limit: 10,
    loads: [clients(64), ...same(3, poisson(100))],
    watched: light,
  },
  even('D', 16, 3, 4),
  {
    name: 'E',
    says: '4 members, limit 8: each in turn gets 200 queries at once, one of them every 500 ms',
    limit: 8,
    loads: all(4).map((member) => bursts(200, 2_000, 500 * member)),
  },
  {
    name: 'F',
    says: '4 members, limit 10: 20 queries a second each',
    limit: 10,
    loads: same(4, poisson(20)),
  },
  {
    name: 'G',
    says: '8 members, limit 10: 80 % of what it can do, Zipf over the members',
    limit: 10,
    loads: all(8).map((member) => poisson((serviceMs) => ((0.8 * 10 * 1_000) / serviceMs) * zipf(member, 8))),
  },
  {
    name: 'H',
    says: '4 members, limit 10: 8 leases of 2.5 to 7.5 s on one; from 2 s on, half of the other two connections on three',
    limit: 10,
    loads: [
      leases(8, 2_500, 7_500),
      ...same(
        3,
        poisson((serviceMs) => (0.5 * 2 * 1_000) / serviceMs / 3, 2_000),
      ),
    ],
    watched: light,
  },
  {
    name: 'uneven',
    says: '4 members, limit 10: 1,000 clients on one, 8 on each of three',
    limit: 10,
    loads: [clients(1_000), ...same(3, clients(8))],
    equals: light,
  },
  even('20 for 16', 16, 20, 4),
  even('5 for 4', 4, 5, 4),
  even('3 for 12', 12, 3, 4),
]
