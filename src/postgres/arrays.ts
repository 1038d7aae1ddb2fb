/** The text form of PostgreSQL's arrays, which postgres.js can read and write but does not share. */

/** All types but this one separate their elements with a comma. */
const boxArray = 1020

type Parse = ((text: string) => unknown) | undefined
type Serialize = ((value: unknown) => unknown) | undefined

/** Reads what follows the opening brace, as postgres.js hands it over. NULL elements are null. */
export function parseArray(text: string, parse: Parse, typarray: number): unknown[] {
  const delimiter = typarray === boxArray ? ';' : ','
  // Bounds that do not begin at 1 stand before: [0:1]={…}. An unquoted element cannot look like that.
  let at = /^[-\d:[\]]+=\{/.exec(text)?.[0].length ?? 0
  const value = (raw: string): unknown => (parse ? parse(raw) : raw)

  const level = (): unknown[] => {
    const items: unknown[] = []
    while (at < text.length) {
      const char = text[at]
      if (char === '}') {
        at++
        break
      }
      if (char === delimiter) {
        at++
      } else if (char === '{') {
        at++
        items.push(level())
      } else if (char === '"') {
        items.push(value(quoted()))
      } else {
        const start = at
        while (at < text.length && text[at] !== delimiter && text[at] !== '}') at++
        const raw = text.slice(start, at)
        items.push(raw === 'NULL' ? null : value(raw))
      }
    }
    return items
  }

  const quoted = (): string => {
    let result = ''
    for (at++; at < text.length && text[at] !== '"'; at++) {
      if (text[at] === '\\') at++
      result += text[at] ?? ''
    }
    at++
    return result
  }

  return level()
}

/** Writes an array, nested ones too. What is not an array is passed on: it may be in text form already. */
export function serializeArray(
  value: unknown,
  serialize: Serialize,
  typarray: number,
  whenUndefined: unknown,
): unknown {
  if (!Array.isArray(value)) return value
  const delimiter = typarray === boxArray ? ';' : ','
  const items: readonly unknown[] = value
  const nested = Array.isArray(items[0])
  const parts = items.map((item) => {
    if (nested) return String(serializeArray(item, serialize, typarray, whenUndefined))
    const given = item === undefined ? whenUndefined : unwrapped(item)
    if (given === undefined) {
      const error = new Error('UNDEFINED_VALUE: Undefined values are not allowed')
      throw Object.assign(error, { code: 'UNDEFINED_VALUE' })
    }
    if (given === null) return 'null'
    const text = String(serialize ? serialize(given) : given)
    return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
  })
  return `{${parts.join(delimiter)}}`
}

/** A value that postgres.js has been told the type of. */
function unwrapped(item: unknown): unknown {
  return typeof item === 'object' && item !== null && 'type' in item && 'value' in item && item.type ? item.value : item
}
