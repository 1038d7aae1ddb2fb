/**
 * What was found wrong, by rule:
 *
 *   answer     a query got rows, or an error, that are not its own
 *   typed      a rejection that is nobody's: no error of ours or the server's, no reason or error of the caller
 *   excuse     an error that nothing has happened to explain
 *   leak       a session shows what an earlier lease left in it
 *   model      the table does not show what was committed, and nothing else
 *   hang       something did not end
 *   late       something ended long after its deadline
 *   unhandled  a rejection that nobody could have handled
 *   lost       at rest, a pool cannot open exactly as many connections as it may
 *   left       at rest, sessions or leases are left that nobody has
 */
export type Rule = 'answer' | 'typed' | 'excuse' | 'leak' | 'model' | 'hang' | 'late' | 'unhandled' | 'lost' | 'left'

export interface Violation {
  readonly rule: Rule
  /** What to draw it again with: the number of the operation. */
  readonly operation: number
  readonly what: string
  readonly detail: string
  /** What the operation did before, and after. */
  readonly trace?: readonly string[]
}

const mostOfOneRule = 8

export class Verdict {
  readonly violations: Violation[] = []
  readonly counts: Record<string, number> = {}

  report(violation: Violation): void {
    const known = this.violations.filter(({ rule }) => rule === violation.rule).length
    // The first ones tell; a fault that shows a thousand times need not be printed so often.
    if (known < mostOfOneRule) this.violations.push(violation)
    this.count(`violated: ${violation.rule}`)
  }

  count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1
  }
}
