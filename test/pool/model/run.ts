import { expect } from 'vitest'
import type { Action } from '../../../src/action.ts'
import { Core } from '../../../src/core.ts'
import type { CoreOptions } from '../../../src/options.ts'
import { Lull } from '../../../src/lull.ts'
import type { Permit, Permits } from '../../../src/permits.ts'
import type { Slot } from '../../../src/slot.ts'
import type { Waiter } from '../../../src/waiters.ts'
import { Silent } from '../support.ts'
import { Model } from './model.ts'
import type { Asker, Place, State } from './model.ts'

/** As many permits as the test says; each is given back once, and closed before that if it was ever used. */
class SomePermits implements Permits {
  readonly lull = new Lull()
  readonly unsettled = false
  readonly out = new Set<Permit>()
  limit: number
  readonly #model: Model
  #made = 0

  constructor(limit: number, model: Model) {
    this.limit = limit
    this.#model = model
  }

  take(): Permit | undefined {
    if (this.out.size >= this.limit) return undefined
    const permit = { tag: `t${++this.#made}` }
    this.out.add(permit)
    return permit
  }

  give(permit: Permit): void {
    if (!this.out.delete(permit)) throw new Error(`${permit.tag} was given back twice`)
  }

  yields(permit: Permit, openedAt: number): boolean {
    expect(openedAt).toBe(this.#model.places.find(({ slot }) => slot.permit === permit)?.openedAt)
    return this.#model.yields
  }

  enrol(): void {}
  settle(): void {}
  opened(): void {}
  closing(): void {}
  leave(): void {}
}

export interface RunOptions extends CoreOptions {
  /** How many permits there are. */
  readonly limit: number
}

const errorNames: Readonly<Record<string, string>> = {
  PoolClosedError: 'closed',
  QueueFullError: 'full',
  ConnectError: 'incurable',
  BrokerError: 'refused',
}

/** The core and its model, side by side. */
export class Run {
  readonly model: Model
  readonly permits: SomePermits
  readonly core: Core<object>
  readonly asked: Asker[] = []

  constructor({ limit, ...options }: RunOptions) {
    this.model = new Model(options)
    this.permits = new SomePermits(limit, this.model)
    this.core = new Core(options, this.permits, () => 0.5)
  }

  /** One of those in this state. */
  pick(state: State, index: number): Place | undefined {
    const places = this.model.in(state)
    return places[index % Math.max(1, places.length)]
  }

  ask({ first = false, timeoutMs = Infinity } = {}): void {
    const { core, model, asked } = this
    const waiter = new Silent<object>(model.now, model.now + timeoutMs)
    const { deadlineAt } = waiter
    const asker: Asker = { waiter, turn: asked.length + 1, deadlineAt, own: first, state: 'waiting' }
    asked.push(asker)
    core.wait(waiter, model.now, first)
    model.ask(asker)
  }

  /** As the shell does after each event: opens what is lacking, and does what was decided. Both must agree on all of it. */
  settle(): void {
    const { core, model, permits } = this
    same(core.lacking(model.now), model.lacking)
    while (model.lacking > 0) {
      const permit = permits.take()
      if (!permit) break
      core.open(permit, model.now)
      const action = core.actions.at(-1)
      if (action?.do !== 'open') throw new Error('it opens')
      model.open(action.slot)
      same(core.lacking(model.now), model.lacking)
    }
    if (model.phase === 'draining' && model.size === 0) model.phase = 'closed'
    core.assertInvariants()
    const actions = core.actions.splice(0)
    const decisions = actions.map((action) => this.#inWords(action))
    same(
      { ...seen(core, model), decisions: byKind(decisions) },
      { ...known(model), decisions: byKind(model.decisions.splice(0)) },
    )
    same(core.size, permits.out.size)
    for (const action of actions) if (action.do === 'expire') this.expire(this.#asker(action.waiter))
  }

  /** The deadline has come. */
  expire(asker: Asker): void {
    const { core, model } = this
    if (asker.state === 'waiting') expect(core.phaseOf(asker.waiter)).toBe(model.phaseOf(asker))
    const late = model.giveUp(asker)
    expect(core.timeOut(asker.waiter)).toBe(late)
    if (late) model.counts.timeouts++
  }

  /** Everything that is under way ends: nobody waits any more, and no permit is out. */
  finish(): void {
    const { core, model } = this
    core.close('test')
    for (const { slot } of model.in('opening')) core.openFailed(slot, new Error('no'), model.now)
    for (const { slot } of model.in('checking')) core.checked(slot, undefined, model.now)
    for (const { slot } of model.in('leased', 'resetting')) core.released(slot, model.now)
    for (const { slot } of model.places) core.closed(slot)
    core.assertInvariants()
    expect([core.phase, this.permits.out.size]).toEqual(['closed', 0])
    expect(this.asked.filter(({ waiter }) => waiter.state === 'waiting')).toEqual([])
  }

  #asker(waiter: Waiter<Slot<object>>): Asker {
    const asker = this.asked.find((one) => one.waiter === waiter)
    if (!asker) throw new Error('nobody asked')
    return asker
  }

  #inWords(action: Action<object>): string {
    const words: string[] = [action.do]
    if ('waiter' in action) words.push(String(this.#asker(action.waiter).turn))
    if ('slot' in action) words.push(action.slot.permit.tag)
    if (action.do === 'check' && action.ping) words.push('with a ping')
    if (action.do === 'close') words.push(action.reason)
    if (action.do === 'fail') words.push(errorNames[(action.error as Error).name] ?? '')
    return words.join(' ')
  }
}

/** The order among decisions of one kind is promised, that between kinds is not. */
function byKind(decisions: string[]): string[] {
  const kinds = ['open', 'check', 'close', 'reap', 'serve', 'expire', 'fail']
  return kinds.flatMap((kind) => decisions.filter((line) => line.startsWith(kind)))
}

/** What can be seen of the core … */
function seen(core: Core<object>, { numbers }: Model): Record<string, unknown> {
  const stats: Record<string, unknown> = { ...core.stats() }
  return {
    numbers: Object.fromEntries(Object.keys(numbers).map((name) => [name, stats[name]])),
    retryAt: core.retryAt,
    failing: core.connectFailure !== undefined,
    oldestWaiterAt: core.oldestWaiterAt,
    oldestIdleAt: core.oldestIdleAt,
    refusing: core.refusal !== undefined,
  }
}

/** … and what the model knows of the same. */
function known(model: Model): Record<string, unknown> {
  return {
    numbers: model.numbers,
    retryAt: model.retryAt,
    failing: model.failing,
    oldestWaiterAt: model.waiting[0]?.waiter.queuedAt,
    oldestIdleAt: model.idle[0]?.idleAt,
    refusing: model.phase !== 'open' || model.refused,
  }
}

/** As `toEqual`, which is slow where all is well. */
function same(got: unknown, right: unknown): void {
  if (got !== right && JSON.stringify(got) !== JSON.stringify(right)) expect(got).toEqual(right)
}
