/**
 * What was found wrong, by rule:
 *
 *   limit      the server counted more backends than there may be
 *   deadline   an acquire was answered too late, or never
 *   typed      a rejection that is no error of ours or the server's, or one that a busy pool has no reason for
 *   unplanned  a thread ended that nobody had told to, by an unhandled rejection for example
 *   hang       something did not end
 *   ledger     at rest, the ledger does not say what the server says
 *   lost       at rest, the members together cannot open exactly as many connections as the limit
 *   left       connections, permits or members are left when all pools are closed
 *   blind      the run has proved nothing: too few looks, or the limit was never reached
 */
export class Verdict {
  violations = []
  #since = performance.now()

  report(rule, detail) {
    const known = this.violations.filter((one) => one.rule === rule).length
    // The first ones tell; a fault that shows a thousand times need not be printed so often.
    if (known < 5) this.violations.push({ rule, atMs: Math.round(performance.now() - this.#since), detail })
  }

  has(rule) {
    return this.violations.some((one) => one.rule === rule)
  }
}

/** The slot of a session, which its name ends with. */
function slotOf({ name }) {
  return / mp[0-9a-z]+-([0-9a-z]+)-[0-9a-z]+$/.exec(name)?.[1]
}

/** What the ledger, the pools and the server's list do not agree on; undefined if they do. All have to be at rest. */
export function disagreement({ stats, pools, sessions }) {
  const { held, closing, granted, limbo, free, limit } = stats
  const open = pools.reduce((sum, pool) => sum + pool.open, 0)
  const slots = new Set(sessions.map(slotOf))
  const agree =
    closing + granted + limbo === 0 &&
    held + free === limit &&
    held === sessions.length &&
    held === open &&
    slots.size === sessions.length &&
    !slots.has(undefined) &&
    pools.every(({ opening, leased, waiting }) => opening + leased + waiting === 0)
  if (agree) return undefined
  const names = sessions.map(({ name, state }) => `${name} (${state})`).join(', ')
  return `ledger ${JSON.stringify({ ...stats, members: undefined })}; pools ${JSON.stringify(pools)}; server: ${names}`
}
