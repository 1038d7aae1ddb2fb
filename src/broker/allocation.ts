// When a permit moves between members. Pure arithmetic over what was read at the moment of the decision; no history.
//
// A move costs M: close here, wake, connect there; meanwhile the connection serves nobody. So
//   - a connection stays with its member for K·M before anybody else may claim it on a release: what is lost by forced
//     moves stays below 1 / (1 + K);
//   - on a release it goes to a member that has none (once its head has waited longer than mine, or Z·M); else to one
//     with at least two fewer whose head has waited longer than mine; else to one whose head has waited f times longer
//     than mine, and K·M more. Only above f = 4 is the one who gave not worse off afterwards: no move reverses itself;
//   - what cannot be shared evenly goes round: after R·M, to one that has half as many and waits twice as long;
//   - a member's last connection goes to members without any only, while somebody waits for it. Anybody else would have
//     to give it back as soon as Z·M is over;
//   - an idle connection may be called away once it has idled for M, a member's last one after K·M, unless the asker
//     has none;
//   - who has some and lacks a single one waits M for one of its own, before it calls one away that would leave the
//     other with fewer.
// `min` is never taken. By these rules at most one permit is on its way to a member at a time.

/** Moves' worth of time that a connection stays, once opened. */
export const K = 10
/** How many times longer than mine another member's wait must be. */
export const f = 4
/** Moves' worth of time after which a member without any comes first. */
export const Z = 3
/** Moves' worth of time after which members take turns. */
export const R = 100

/** A member, as read. Times are milliseconds, as ages. */
export interface MemberView {
  alive: boolean
  /** Permits that it would open with now; those under way not counted. */
  want: number
  /** How long its oldest waiter has waited. */
  waited: number
  /** Permits that it has or is getting; closing ones, and those it is about to give, not counted. */
  held: number
  /** Permits granted to it that it has not picked up. */
  granted: number
  /** Openings under way. */
  opening: number
  idle: number
  /** How long the oldest of them has idled. */
  idled: number
  min: number
}

/** Everything that a decision is made from. */
export interface View {
  /** By number of row. */
  readonly members: MemberView[]
  /** How many of them count. */
  size: number
  /** Permits on their way to whoever wants: free, or closing and soon to be given. */
  supply: number
  /** What a move costs, in ms. */
  move: number
}

/** No member. */
export const nobody = -1

/** Permits that a member wants and that are not on their way to it. */
export function owed(member: MemberView): number {
  return member.alive ? Math.max(0, member.want - member.granted) : 0
}

/** Who is next for a permit that is free: members without any first, then who has waited longest. */
function goesBefore(a: MemberView, b: MemberView): boolean {
  if ((a.held === 0) !== (b.held === 0)) return a.held === 0
  return a.waited > b.waited
}

/** As `goesBefore`, for idle connections: who has fewest, then who has waited longest. */
function isPoorer(a: MemberView, b: MemberView): boolean {
  return a.held === b.held ? a.waited > b.waited : a.held < b.held
}

/** Whom a permit goes to that I have no use for; nobody if nobody is owed one. */
export function nextOwed(view: View, me: number): number {
  let next = nobody
  for (let i = 0; i < view.size; i++) {
    if (i === me || owed(view.members[i]!) === 0) continue
    if (next === nobody || goesBefore(view.members[i]!, view.members[next]!)) next = i
  }
  return next
}

/**
 * Whom I owe a connection that is being released, `waited` being the age of the head of my own queue (0 if nobody
 * waits) and `open` how long the connection has been open. Nobody: it is mine to use.
 */
export function owedOnRelease(view: View, me: number, waited: number, open: number): number {
  const { held, min } = view.members[me]!
  if (open < K * view.move || held <= min) return nobody
  return worseOff(view, me, { held, waited, open })
}

/** How the one stands who may have to give: what it has, how long its head has waited, how long the connection is open. */
interface Giver {
  readonly held: number
  readonly waited: number
  readonly open: number
}

/** Who is so much worse off than I am that a permit of mine goes there. */
function worseOff(view: View, me: number, mine: Giver): number {
  // What is on its way already counts as received by those who are next for it.
  const due = afterSupply(view)
  let none = nobody
  let fewer = nobody
  for (let i = 0; i < view.size; i++) {
    const member = view.members[i]!
    if (i === me || owed(member) === 0 || member.granted + member.opening > 0 || due[i] !== owed(member)) continue
    if (member.held === 0) {
      if (member.waited <= Math.min(mine.waited, Z * view.move)) continue
      if (none === nobody || member.waited > view.members[none]!.waited) none = i
    } else if (isWorseOff(member, mine, view.move)) {
      if (fewer === nobody || member.waited > view.members[fewer]!.waited) fewer = i
    }
  }
  return none === nobody ? fewer : none
}

/** The same, of a member that has some. */
function isWorseOff(member: MemberView, { held, waited, open }: Giver, move: number): boolean {
  if (member.held <= held - 2 && member.waited > waited) return true
  if (member.held <= held / 2 && member.waited > 2 * waited && open >= R * move) return true
  return (held > 1 || waited === 0) && member.waited > f * waited + K * move
}

/**
 * Whom a permit of mine goes to whose connection has ended for a reason of its own, `lacking` being how many I would
 * open now. Me, unless somebody is so much worse off that I would owe it on a release as well.
 */
export function owedOnReturn(view: View, me: number, lacking: number): number {
  if (lacking === 0) return nextOwed(view, me)
  const mine = view.members[me]!
  if (mine.held + 1 <= mine.min) return me
  const other = worseOff(view, me, { held: mine.held + 1, waited: mine.waited, open: 0 })
  return other === nobody ? me : other
}

/** What each member is owed once all that is on its way has arrived. */
function afterSupply(view: View): number[] {
  const due: number[] = []
  const served: boolean[] = []
  for (let i = 0; i < view.size; i++) {
    due.push(owed(view.members[i]!))
    served.push(false)
  }
  for (let left = view.supply; left > 0; left--) {
    let next = nobody
    for (let i = 0; i < view.size; i++) {
      if (due[i] === 0) continue
      // Who has been served once is not without any more.
      const before =
        next === nobody ||
        (served[i] === served[next] ? goesBefore(view.members[i]!, view.members[next]!) : served[next])
      if (before) next = i
    }
    if (next === nobody) break
    due[next]!--
    served[next] = true
  }
  return due
}

/** Whether somebody other than I is owed more than is on its way. */
export function isShort(view: View): boolean {
  let short = -view.supply
  for (let i = 0; i < view.size; i++) short += owed(view.members[i]!)
  return short > 0
}

/** How long a connection of a member must have idled before it can be called away for the asker. */
function ripeAfter(view: View, donor: MemberView, asker: MemberView): number {
  return donor.held > 1 || asker.held === 0 ? view.move : K * view.move
}

/** How long the asker must have waited before it may call away a connection of the donor's. */
function patience(view: View, donor: MemberView, asker: MemberView): number {
  if (asker.want > 1 || asker.held === 0) return 0
  // A member's last one is ripe late enough.
  return donor.held === 1 || donor.held >= asker.held + 2 ? 0 : view.move
}

/** In how long the oldest idle connection of a member may go to the asker; 0 or less: now. Infinity if none may. */
function ripensIn(view: View, donor: MemberView, asker: MemberView): number {
  if (donor.idle === 0 || donor.held <= donor.min) return Infinity
  return Math.max(ripeAfter(view, donor, asker) - donor.idled, patience(view, donor, asker) - asker.waited)
}

function isRipe(view: View, donor: MemberView, asker: MemberView): boolean {
  return ripensIn(view, donor, asker) <= 0
}

/** Whom my oldest idle connection goes to; nobody if it stays. */
export function owedOfIdle(view: View, me: number): number {
  if (!isShort(view)) return nobody
  const due = afterSupply(view)
  const donor = view.members[me]!
  let next = nobody
  for (let i = 0; i < view.size; i++) {
    const asker = view.members[i]!
    if (i === me || due[i] === 0 || !isRipe(view, donor, asker)) continue
    if (next === nobody || isPoorer(asker, view.members[next]!)) next = i
  }
  return next
}

/**
 * Whom to wake so that it gives up an idle connection: the next member with a ripe one after the one that was woken last.
 * In turn, since one that is blocked neither gives nor passes the wake on. Never me.
 */
export function donorToWake(view: View, me: number, last: number = nobody): number {
  if (!isShort(view)) return nobody
  const due = afterSupply(view)
  for (let step = 1; step <= view.size; step++) {
    const i = (last + step + view.size) % view.size
    const member = view.members[i]!
    if (i === me || !member.alive) continue
    for (let j = 0; j < view.size; j++) if (j !== i && due[j] !== 0 && isRipe(view, member, view.members[j]!)) return i
  }
  return nobody
}

/** While somebody lacks a connection, everything is looked at again at least this often, and at most that often. */
export const longestTickMs = 100
const shortestTickMs = 2

/** How long a member that lacks connections waits before it looks again, unless it is woken; `move` is what one costs. */
export function lookAgainAfter(view: View, me: number, move: number): number {
  return Math.max(shortestTickMs, Math.min(nextRipening(view, me), move, longestTickMs))
}

/** How long until the next idle connection elsewhere is ripe for me; Infinity if none will be. */
export function nextRipening(view: View, me: number): number {
  const asker = view.members[me]!
  let next = Infinity
  for (let i = 0; i < view.size; i++) {
    const member = view.members[i]!
    if (i !== me && member.alive) next = Math.min(next, Math.max(0, ripensIn(view, member, asker)))
  }
  return next
}
