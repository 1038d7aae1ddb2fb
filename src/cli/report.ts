import { sumUp } from '../postgres/limit-sum.ts'
import type { LimitCheck, LimitNumbers } from '../postgres/limit-sum.ts'

/** Whether a limit fits, with all that was found out. */
export interface Diagnosis extends LimitCheck {
  /** `host:port/database` */
  readonly server: string
  /** How many of the others' sessions are those of pools like ours. */
  readonly millpond?: LimitNumbers['others']
}

type Row = readonly [what: string, allowed: string, others: string, left: string]

/** The sum as a table, and what follows from it, for a terminal. */
export function reportOf(diagnosis: Diagnosis): string {
  const { server, numbers, advice } = diagnosis
  const lines = [`${server} as "${numbers.role}"`, '', ...table(rowsOf(numbers)), '', verdict(diagnosis)]
  if (numbers.proxy) lines.push('A proxy is in between: these are the numbers of the server behind it.')
  lines.push(...aboutOwn(diagnosis), ...advice)
  return `${lines.join('\n')}\n`
}

function rowsOf(numbers: LimitNumbers): Row[] {
  const { maxConnections, superuserReserved, reserved, role, database, roleLimit, databaseLimit, others } = numbers
  const { superuser, usesReserved } = numbers
  // The same sum, of the server alone.
  const server = sumUp(1, { ...numbers, roleLimit: -1, databaseLimit: -1 })
  const rows: Row[] = [
    ['', 'allowed', 'others now', 'left'],
    ['server: max_connections', String(maxConnections), '', ''],
  ]
  if (!superuser) rows.push(['  superuser_reserved_connections', `-${superuserReserved}`, '', ''])
  if (!superuser && !usesReserved && reserved !== undefined)
    rows.push(['  reserved_connections', `-${reserved}`, '', ''])
  rows.push([
    superuser ? '  for a superuser' : '  for this role',
    String(server.most),
    String(others.server),
    String(server.room),
  ])
  const limited = (what: string, limit: number, used: number): Row => {
    if (limit < 0) return [what, 'no limit', String(used), '']
    if (superuser) return [`${what}: ${limit}, not for a superuser`, 'no limit', String(used), '']
    return [what, String(limit), String(used), String(Math.max(0, limit - used))]
  }
  rows.push(limited(`role "${role}"`, roleLimit, others.role))
  rows.push(limited(`database "${database}"`, databaseLimit, others.database))
  return rows
}

function table(rows: readonly Row[]): string[] {
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map(([what, ...cells]) =>
    [what.padEnd(widths[0] ?? 0), ...cells.map((cell, index) => cell.padStart(widths[index + 1] ?? 0))]
      .join('   ')
      .trimEnd(),
  )
}

function verdict({ fits, limit, most, room, numbers }: Diagnosis): string {
  if (fits === 'no') return `A limit of ${limit} can never be had: ${most} at the most.`
  const how = fits === 'yes' ? 'fits' : 'is tight'
  return numbers.proxy && limit > most
    ? `A limit of ${limit} ${how}: it is more than the ${most} that the server would give this role.`
    : `A limit of ${limit} ${how}: ${room} can be had now, ${most} at the most.`
}

function aboutOwn({ fits, millpond }: Diagnosis): string[] {
  if (!millpond || millpond.server === 0) return []
  const { server, role, database } = millpond
  const whose = `${role} of this role, ${database} on this database`
  const words = `Of the others, ${server} ${server === 1 ? 'is a connection' : 'are connections'} of millpond (${whose}).`
  return [
    fits === 'yes' ? words : `${words} If they are those of the service that this limit is for, they count twice.`,
  ]
}
