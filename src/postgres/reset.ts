/**
 * What a statement may leave behind in its session.
 *
 *   nothing   but for what its command tag says
 *   local     nothing, whatever its tag says: SET LOCAL, SET TRANSACTION
 *   session   something that a reset undoes
 *   stale     something that no reset undoes: prepared statements that postgres.js does not know of, or that it takes for
 *             existing; a library; a seed
 */
export type Trace = 'nothing' | 'local' | 'session' | 'stale'

/**
 * Makes a session as good as new, but for the prepared statements, which postgres.js goes on using: everything that
 * DISCARD ALL does without its DEALLOCATE ALL.
 */
export const resetStatement: string = [
  'CLOSE ALL',
  'SET SESSION AUTHORIZATION DEFAULT',
  'RESET ALL',
  'UNLISTEN *',
  'SELECT pg_advisory_unlock_all()',
  'DISCARD PLANS',
  'DISCARD TEMP',
  'DISCARD SEQUENCES',
].join(';')

// Tags do not tell everything: CREATE TEMP TABLE AS is a SELECT, and so is a call of set_config or pg_advisory_lock.
// What only looks like one of these (in a string, a comment, a name) costs a reset, no more.
const leavesTraces =
  /set_config|pg_settings|pg_(?:try_)?advisory_lock|\btemp(?:orary)?\b|\bpg_temp(?:_\d+)?\b|\bwith\s+hold\b|\b(?:next|set)val\b/i
const leavesForGood =
  /\bsetseed\b|\bdblink_connect|\bpg_replication_origin_session_setup\b|\bpg_create_(?:logical|physical)_replication_slot\b/i
// At the beginning of a statement, comments before it or not.
const statementLeavesTraces = /(?:^|;)(?:\s|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)*(?:do|call|listen)\b/i
const localOnly = /^\s*set\s+(?:local|transaction|constraints)\b[^;]*(?:;\s*)?$/i

const sessionTags: ReadonlySet<string> = new Set(['SET', 'RESET', 'LISTEN', 'UNLISTEN', 'DECLARE CURSOR', 'DO', 'CALL'])
const staleTags: ReadonlySet<string> = new Set(['PREPARE', 'DEALLOCATE', 'DEALLOCATE ALL', 'LOAD'])

const remembered = new Map<string, Trace>()
const mostRemembered = 2_000
const longestRemembered = 10_000

/** What a statement's text shows. Remembered, since there are few texts and many statements. */
export function traceOfText(text: string): Trace {
  const known = remembered.get(text)
  if (known) return known
  const trace = looked(text)
  if (text.length <= longestRemembered) {
    // Texts with values in them would fill it for good.
    if (remembered.size >= mostRemembered) remembered.clear()
    remembered.set(text, trace)
  }
  return trace
}

function looked(text: string): Trace {
  if (leavesForGood.test(text)) return 'stale'
  if (localOnly.test(text)) return 'local'
  return leavesTraces.test(text) || statementLeavesTraces.test(text) ? 'session' : 'nothing'
}

/** What a completed command's tag shows. */
export function traceOfTag(tag: string): Trace {
  if (staleTags.has(tag) || tag.startsWith('DISCARD')) return 'stale'
  return sessionTags.has(tag) ? 'session' : 'nothing'
}

/**
 * What the statements of one lease may have left behind, all together.
 *
 * Always: `stale` stays until the connection is closed, but for what is adopted; `session` until `clean()`.
 */
export class Traces {
  session = false
  stale = false
  /** Statements that postgres.js takes for existing may be gone. */
  #deallocated = false

  /** A statement is sent. Said before its answer comes: an advisory lock outlives an error. */
  sent(text: Trace): void {
    if (text === 'session') this.session = true
    else if (text === 'stale') this.stale = true
  }

  /** It has been answered. */
  answered(text: Trace, tags: ReadonlySet<string>): void {
    if (tags.size === 0) return
    for (const tag of tags) {
      const trace = traceOfTag(tag)
      if (trace === 'stale') {
        this.stale = true
        if (tag !== 'PREPARE' && tag !== 'LOAD') this.#deallocated = true
      }
      if (trace === 'session' && text !== 'local') this.session = true
    }
  }

  clean(): void {
    this.session = false
  }

  /** What has been done so far is how every lease is to find the session, statements that were prepared included. */
  adopt(): void {
    this.session = false
    this.stale = this.#deallocated
  }
}
