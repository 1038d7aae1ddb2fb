/** What a server says of its room, as it says it. Connections, all of them. */
export interface LimitNumbers {
  readonly maxConnections: number
  /** `superuser_reserved_connections`: only superusers get these. */
  readonly superuserReserved: number
  /** `reserved_connections`: only members of `pg_use_reserved_connections` and superusers. Undefined before PostgreSQL 16. */
  readonly reserved: number | undefined
  /** Who connects. */
  readonly role: string
  readonly superuser: boolean
  /** Whether the role may use `reserved_connections`. */
  readonly usesReserved: boolean
  /** The role's CONNECTION LIMIT; -1 is none. */
  readonly roleLimit: number
  readonly database: string
  /** The database's CONNECTION LIMIT; -1 is none. */
  readonly databaseLimit: number
  /** Sessions of clients that are not under the limit, now: on the server, of the role, on the database. */
  readonly others: { readonly server: number; readonly role: number; readonly database: number }
  /** Whether something (PgBouncer, for example) answers in the server's place: the numbers are the server's, not its. */
  readonly proxy: boolean
}

/**
 * Whether a limit can be had.
 *
 *   yes     now
 *   tight   others use so much that it cannot be had now; or a proxy is in between, and it can be had only from that
 *   no      never: it is above what the server, the role or the database allow
 */
export type LimitFit = 'yes' | 'tight' | 'no'

/** A limit beside the room that there is for it. */
export interface LimitCheck {
  readonly fits: LimitFit
  /** The limit that was checked, in connections. */
  readonly limit: number
  /** The most connections that this role can ever have to this database. */
  readonly most: number
  /** How many of those the others leave now; never below 0. */
  readonly room: number
  readonly numbers: LimitNumbers
  /** The sum written out, in one line. */
  readonly sum: string
  /** What to do, a sentence each; empty where it fits. */
  readonly advice: readonly string[]
}

/** One thing that bounds the connections of a role to a database. */
interface Bound {
  readonly most: number
  readonly others: number
  readonly room: number
  readonly words: string
  /** What makes its `most` so many. */
  raise(to: number): string
}

/** Works out whether a limit fits. */
export function sumUp(limit: number, numbers: LimitNumbers): LimitCheck {
  const bounds = [ofServer(numbers), ofRole(numbers), ofDatabase(numbers)]
  const most = Math.min(...bounds.map((bound) => bound.most))
  const room = Math.min(...bounds.map((bound) => bound.room))
  const { proxy } = numbers
  // What a proxy gives to its clients can be more than it has.
  const fits = limit <= room ? 'yes' : limit <= most || proxy ? 'tight' : 'no'
  const sum = `${bounds.map((bound) => bound.words).join('; ')}: ${room} left for a limit of ${limit}`
  return Object.freeze({
    fits,
    limit,
    most,
    room,
    numbers: Object.freeze({ ...numbers, others: Object.freeze({ ...numbers.others }) }),
    sum: proxy ? `${sum} (a proxy is in between, whose own limits are not in this sum)` : sum,
    advice: Object.freeze(adviceFor({ limit, most, room, proxy }, bounds)),
  })
}

function ofServer(numbers: LimitNumbers): Bound {
  const { maxConnections, superuserReserved, reserved = 0, superuser, usesReserved, others } = numbers
  const withheld = superuser ? 0 : superuserReserved + (usesReserved ? 0 : reserved)
  const most = Math.max(0, maxConnections - withheld)
  const terms = [`${maxConnections} max_connections`]
  if (!superuser) terms.push(`${superuserReserved} superuser_reserved_connections`)
  if (!superuser && !usesReserved && numbers.reserved !== undefined) terms.push(`${reserved} reserved_connections`)
  const all = superuser
    ? `${terms.join('')}, all of them open to a superuser`
    : `${terms.join(' − ')} = ${maxConnections - withheld}`
  return boundOf(all, most, others.server, (to) => `raise max_connections to ${to + withheld} (needs a restart)`)
}

function ofRole({ role, roleLimit, superuser, others }: LimitNumbers): Bound {
  return ofLimit(`role "${role}"`, `alter role ${quoted(role)}`, { limit: roleLimit, superuser, others: others.role })
}

function ofDatabase({ database, databaseLimit, superuser, others }: LimitNumbers): Bound {
  const at = { limit: databaseLimit, superuser, others: others.database }
  return ofLimit(`database "${database}"`, `alter database ${quoted(database)}`, at)
}

function ofLimit(
  what: string,
  alter: string,
  { limit, superuser, others }: { limit: number; superuser: boolean; others: number },
): Bound {
  if (limit >= 0 && !superuser) {
    return boundOf(`${what} may have ${limit}`, limit, others, (to) => `\`${alter} connection limit ${to}\``)
  }
  const words = limit < 0 ? `${what} no limit` : `${what} a limit of ${limit}, which does not bind a superuser`
  return { most: Infinity, others, room: Infinity, words, raise: () => '' }
}

function boundOf(allowed: string, most: number, others: number, raise: Bound['raise']): Bound {
  const room = Math.max(0, most - others)
  return { most, others, room, words: `${allowed}, others use ${others} of them now: ${room} left`, raise }
}

function adviceFor(
  { limit, most, room, proxy }: Pick<LimitCheck, 'limit' | 'most' | 'room'> & Pick<LimitNumbers, 'proxy'>,
  bounds: readonly Bound[],
): string[] {
  const advice: string[] = []
  if (limit > room) {
    const short = bounds.filter((one) => one.room < limit)
    const lower = Math.min(limit - 1, room > 0 ? room : most)
    const ways = [
      ...(lower > 0 ? [`lower the limit to ${lower}`] : []),
      short.map((one) => one.raise(limit + one.others)).join(' and '),
    ]
    const [first = '', ...rest] = ways
    const way = [first.replace(/^[a-z]/, (letter) => letter.toUpperCase()), ...rest].join(', or ')
    advice.push(`${way}${limit > most ? '' : ', or wait until the others have left'}.`)
  }
  if (proxy) advice.push('Compare the limit with what the proxy allows, too: its pool sizes, its number of clients.')
  return advice
}

/** A name as SQL wants it. */
function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
