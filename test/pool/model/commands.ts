import { expect } from 'vitest'
import { BrokerError, ConnectError } from '../../../src/errors.ts'
import type { Run } from './run.ts'

/** What a command does to the core and to its model. `index` picks one of several, `ms` is a time or another number. */
type Command = (run: Run, index: number, ms: number) => void

function openFailed(
  { core, model }: Run,
  place = model.in('opening')[0],
  { doubtful = false, retryable = true } = {},
): void {
  if (!place) return
  core.openFailed(place.slot, new ConnectError('no', { doubtful, retryable }), model.now)
  model.counts.openFailures++
  model.failed(place)
  if (doubtful) {
    place.state = 'closing'
    model.doubt(place)
  } else model.leave(place)
  if (!retryable) model.failAll('incurable')
}

function checked({ core, model }: Run, place = model.in('checking')[0], failure?: 'ping failed' | 'refused'): void {
  if (!place) return
  core.checked(place.slot, failure, model.now)
  const asker = model.takeAsker(place)
  place.provenAt = model.now
  if (place.uses === 0) {
    if (failure) model.failed(place)
    else model.succeeded()
  }
  const reason = failure ?? (asker && model.spent(place))
  if (reason) {
    model.close(place, reason)
    if (asker) model.again(asker)
  } else if (asker) model.serve(asker, place)
  else model.put(place)
}

function released({ core, model }: Run, place = model.in('leased')[0]): void {
  if (!place) return
  core.released(place.slot, model.now)
  place.idleAt = place.provenAt = model.now
  const reason = model.spent(place) ?? (model.yields ? 'reclaimed' : undefined)
  if (reason) model.close(place, reason)
  else model.put(place)
}

/** Each with how often it comes. */
export const commands: Readonly<Record<string, readonly [weight: number, act: Command]>> = {
  // ── Acquiring ──────────────────────────────────────────────────────────────────────────────────────────────────
  acquire: [
    10,
    (run) => {
      const { core, model } = run
      if (model.options.checkAlways) return run.ask()
      const place = model.next()
      const taken = core.take(model.now)
      if (!place || model.needsPing(place)) {
        expect(taken).toBeUndefined()
        return run.ask()
      }
      expect(taken).toBe(place.slot)
      model.lend(place)
    },
  ],
  'acquire now or never': [2, (run) => run.ask({ timeoutMs: 0 })],
  'acquire soon': [2, (run, _, ms) => run.ask({ timeoutMs: ms })],
  'acquire for the pool itself': [2, (run) => run.ask({ first: true })],
  'try to acquire': [
    1,
    ({ core, model }) => {
      const place = model.next()
      const taken = core.take(model.now)
      if (!place || model.needsPing(place)) return expect(taken).toBeUndefined()
      expect(taken).toBe(place.slot)
      model.lend(place)
    },
  ],
  abort: [
    2,
    ({ core, model, asked }, index) => {
      const asker = asked.at(-1 - index)
      if (!asker) return
      const pending = model.giveUp(asker)
      expect(core.abort(asker.waiter)).toBe(pending)
      if (pending) model.counts.aborted++
    },
  ],
  'time out': [
    2,
    (run, index) => {
      const asker = run.asked.at(-1 - index)
      if (asker) run.expire(asker)
    },
  ],

  // ── Opening ────────────────────────────────────────────────────────────────────────────────────────────────────
  opened: [
    12,
    (run, index) => {
      const { core, model } = run
      const place = run.pick('opening', index)
      if (!place) return
      const { now, options } = model
      core.opened(place.slot, {}, now)
      model.counts.opens++
      if (!options.checkAlways) model.succeeded()
      place.openedAt = place.idleAt = place.provenAt = now
      place.expiresAt = now + options.maxLifetimeMs * 0.95
      model.put(place)
    },
  ],
  'open failed': [2, (run, index) => openFailed(run, run.pick('opening', index))],
  'open in doubt': [1, (run, index) => openFailed(run, run.pick('opening', index), { doubtful: true })],
  'open incurable': [1, (run, index) => openFailed(run, run.pick('opening', index), { retryable: false })],

  // ── Checking ───────────────────────────────────────────────────────────────────────────────────────────────────
  'check passed': [8, (run, index) => checked(run, run.pick('checking', index))],
  'ping failed': [2, (run, index) => checked(run, run.pick('checking', index), 'ping failed')],
  'check refused': [1, (run, index) => checked(run, run.pick('checking', index), 'refused')],

  // ── Releasing ──────────────────────────────────────────────────────────────────────────────────────────────────
  released: [14, (run, index) => released(run, run.pick('leased', index))],
  resetting: [
    3,
    (run, index) => {
      const place = run.pick('leased', index)
      if (!place) return
      run.core.resetting(place.slot)
      run.model.move(place, 'resetting')
    },
  ],
  'reset passed': [5, (run, index) => released(run, run.pick('resetting', index))],
  destroyed: [
    2,
    (run, index) => {
      const place = run.pick(index % 2 === 0 ? 'leased' : 'resetting', index >> 1)
      const reason = (['destroyed', 'broken', 'reset failed'] as const)[index % 3] ?? 'destroyed'
      if (!place) return
      run.core.destroy(place.slot, reason)
      if (reason !== 'destroyed') run.model.counts.badReturns++
      run.model.close(place, reason)
    },
  ],
  lost: [
    2,
    ({ core, model }, index) => {
      const place = model.places.at(-1 - index)
      if (!place) return
      core.lost(place.slot, model.now)
      if (['opening', 'closing', 'gone'].includes(place.state)) return
      const asker = model.takeAsker(place)
      model.close(place, 'broken')
      model.suspectBefore = model.now
      if (asker) model.again(asker)
    },
  ],

  // ── Closing ────────────────────────────────────────────────────────────────────────────────────────────────────
  closed: [
    12,
    (run, index) => {
      const place = run.pick('closing', index)
      if (!place) return
      run.core.closed(place.slot)
      run.model.leave(place)
    },
  ],
  'closed in doubt': [
    1,
    ({ core, model }, index) => {
      const place = model.places.at(-1 - index)
      if (!place) return
      core.inDoubt(place.slot)
      if (place.state === 'closing') model.doubt(place)
    },
  ],
  evict: [
    1,
    ({ core, model }) => {
      core.evict()
      model.generation++
      model.closeAll(model.idle, 'evicted')
    },
  ],
  'release idle': [
    1,
    ({ core, model }) => {
      const places = model.idle.slice(0, model.spare)
      expect(core.releaseIdle()).toEqual(places.map(({ slot }) => slot))
      model.closeAll(places, 'idle')
    },
  ],
  'retire idle': [
    1,
    ({ core, model }) => {
      expect(core.retireIdle()).toBe(model.idle.length > 0)
      model.closeAll(model.idle.slice(0, 1), 'reclaimed')
    },
  ],
  resize: [
    1,
    ({ core, model }, index, ms) => {
      const max = 1 + (index % 5)
      const min = Math.min(max, ms % 3)
      const maxIdle = Math.max(min, Math.min(max, ms % 6))
      Object.assign(model, { min, max, maxIdle })
      core.resize({ min, max, maxIdle })
      const isTooMuch = (): boolean => model.idle.length > maxIdle || model.size - model.count('closing') > max
      for (const place of model.idle) if (isTooMuch()) model.close(place, 'surplus')
    },
  ],
  sweep: [
    5,
    ({ core, model }) => {
      core.sweep(model.now, false)
      model.sweep(false)
    },
  ],
  'late sweep': [
    1,
    ({ core, model }) => {
      core.sweep(model.now, true)
      model.sweep(true)
    },
  ],
  'look for leaks': [
    1,
    ({ core, model }, _, ms) => {
      const leaks = model.in('leased').filter(({ leaked, leasedAt }) => !leaked && model.now - leasedAt > ms)
      expect(core.leaks(model.now, ms)).toEqual(leaks.map(({ slot }) => slot))
      for (const place of leaks) place.leaked = true
      model.counts.leaks += leaks.length
    },
  ],

  'something comes too late': [
    2,
    ({ core, model }, index) => {
      const place = [...model.gone, ...model.places].at(-1 - index)
      if (!place) return
      const { slot, state } = place
      if (state !== 'checking') core.checked(slot, index % 2 === 0 ? 'ping failed' : undefined, model.now)
      if (state !== 'leased' && state !== 'resetting') {
        core.released(slot, model.now)
        core.destroy(slot, 'broken')
      }
      if (state !== 'closing') {
        core.closed(slot)
        core.inDoubt(slot)
      } else core.lost(slot, model.now)
    },
  ],

  // ── From outside ───────────────────────────────────────────────────────────────────────────────────────────────
  'time passes': [8, ({ model }, _, ms) => void (model.now += ms)],
  'nothing happens for a while': [
    6,
    ({ core, model }, index, ms) => {
      for (let quarter = 0; quarter < index % 8; quarter++) {
        const late = quarter === 0 && ms === 1_000
        model.now += 100
        core.sweep(model.now, late)
        model.sweep(late)
      }
    },
  ],
  'others want': [1, ({ model }, index) => void (model.yields = index % 4 === 0)],
  'other limit': [1, ({ permits }, index) => void (permits.limit = index % 7)],
  // The last two end a run, so they come seldom.
  refuse: [
    1,
    ({ core, model }, index) => {
      if (index !== 15) return
      core.refuse(new BrokerError('ERR_BROKER_CLOSED', 'no permits any more'))
      model.refused = true
      model.failAll('refused')
      model.closeAll(model.idle, 'closed')
    },
  ],
  close: [
    1,
    ({ core, model }, index) => {
      if (index !== 15) return
      core.close('test')
      if (model.phase === 'open') model.phase = 'draining'
      model.failAll('closed')
      model.closeAll(model.idle, 'closed')
      for (const place of model.places) {
        const asker = model.takeAsker(place)
        if (asker) model.fail(asker, 'closed')
      }
    },
  ],
  revoke: [
    1,
    ({ core, model }, index) => {
      if (index < 12) return
      const places = model.in('leased', 'resetting')
      expect(core.revoke()).toBe(places.length)
      model.closeAll(places, 'revoked')
    },
  ],
}
