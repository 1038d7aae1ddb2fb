import { builtInSerializers } from './built-in-types.ts'
import { bind, execute, sync } from './messages.ts'
import type { RawQuery } from './query.ts'
import { traceOfText } from './reset.ts'

/** What postgres.js knows of a statement that it has prepared; `types` are the server's. */
interface Statement {
  readonly string: string
  readonly name: string
  readonly types: readonly number[]
}

/** A statement and the types that its parameters were given with: the same text with others is another statement. */
interface Known {
  readonly given: readonly number[]
  readonly statement: Statement
}

type Serializers = Readonly<Record<number, ((value: unknown) => unknown) | undefined>>

/** The server's OIDs. A type that is not given is the server's to find. */
const notGiven = 0
const boolean = 16
const bigint = 20
/** Those whose values postgres.js makes something of that may fail: bytes, times. */
const mayFail: ReadonlySet<number> = new Set([17, 1082, 1114, 1184])
const longestText = 2 ** 16

/**
 * The statements that one session has prepared and that may be sent before it is their turn, and the messages that run
 * them: those that postgres.js will make of the same query when its turn has come, byte by byte.
 *
 * Of the tagged templates that read or write rows and touch nothing else of the session. Their parameters are values of
 * which postgres.js makes a text in a way that cannot fail and does not change.
 */
export class KnownStatements {
  readonly #serializers: Serializers
  #known = new WeakMap<readonly string[], Known[]>()

  /** `serializers`: those of the session, as they are when a statement is sent. */
  constructor(serializers: Serializers) {
    this.#serializers = serializers
  }

  /** Whether a query's answer is one that others may be sent behind, and whether it may be sent behind others. */
  static allow(query: RawQuery): boolean {
    const { tagged, strings, options, cursorFn, streaming, onlyDescribe, forEachFn } = query
    if (!tagged || cursorFn || streaming || onlyDescribe || options.simple || options.prepare === false) return false
    // One that is run once more would give rows to it that it has had.
    if (forEachFn) return false
    return isPlain(strings) && query.args.every(isPlainValue)
  }

  /** A query that is allowed has been answered, without an error. */
  learn(query: RawQuery): void {
    const statement = query.statement as Statement | null
    if (!statement?.name || this.#find(query)) return
    const known = { given: query.args.map(givenType), statement }
    const others = this.#known.get(query.strings)
    if (others) others.push(known)
    else this.#known.set(query.strings, [known])
  }

  /** One of them has been prepared anew, under another name, or is about to be: which ones is not known by their texts. */
  forget(): void {
    this.#known = new WeakMap()
  }

  /** What postgres.js will send for a query that is allowed, which is told its text; undefined where that is not known. */
  messageFor(query: RawQuery): Buffer | undefined {
    const statement = this.#find(query)
    if (!statement) return undefined
    const { args } = query
    const texts: (string | null)[] = []
    for (const [i, value] of args.entries()) {
      const type = statement.types[i] ?? notGiven
      const serialize = this.#serializers[type]
      if (mayFail.has(type) || serialize !== builtInSerializers()[type]) return undefined
      // oxlint-disable-next-line no-base-to-string -- values that are no objects
      texts.push(value === null ? null : String(serialize ? serialize(value) : value))
    }
    query.string = statement.string
    return Buffer.concat([bind(statement.name, texts), execute, sync])
  }

  #find({ strings, args }: Pick<RawQuery, 'strings' | 'args'>): Statement | undefined {
    return this.#known.get(strings)?.find(({ given }) => given.every((type, i) => type === givenType(args[i])))
      ?.statement
  }
}

/** As postgres.js infers it. */
function givenType(value: unknown): number {
  return typeof value === 'boolean' ? boolean : typeof value === 'bigint' ? bigint : notGiven
}

function isPlainValue(value: unknown): boolean {
  if (value === null) return true
  if (typeof value === 'string') return value.length <= longestText
  return typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint'
}

const startsPlain = /^\s*(?:select|insert|update|delete|values|with)\b/i
const texts = new WeakMap<readonly string[], boolean>()

/** Whether the text reads or writes rows, and leaves nothing in the session. */
function isPlain(strings: readonly string[]): boolean {
  // A template's are, for good. By what is no template's the text is not known again.
  if (!Object.isFrozen(strings)) return false
  let plain = texts.get(strings)
  if (plain === undefined) {
    plain = startsPlain.test(strings[0] ?? '') && traceOfText(strings.join('$')) === 'nothing'
    texts.set(strings, plain)
  }
  return plain
}
