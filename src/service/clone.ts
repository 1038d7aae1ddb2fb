import type { Transferable } from 'node:worker_threads'
import { types } from 'node:util'

/** Whether structured clone takes a value. */
export function canCross(value: unknown, transfer: readonly Transferable[] = []): boolean {
  if (typeof value === 'function' || typeof value === 'symbol') return false
  if (typeof value !== 'object' || value === null) return true
  try {
    // Moving them would take them from their owner.
    structuredClone(transfer.length > 0 ? replace(value, new Map(transfer.map((one) => [one, undefined]))) : value)
    return true
  } catch {
    return false
  }
}

/** Says what of a value cannot cross: `its "rows[3].callback" is a function`. Slow; for errors. */
export function culpritIn(value: unknown, transfer: readonly Transferable[] = []): string {
  const { path, culprit } = findCulprit(value, transfer)
  return `${path ? `its "${path.replace(/^\./, '')}"` : 'it'} is ${kindOf(culprit)}`
}

/** Where in a value that cannot cross the culprit is: `.rows[3].callback`, or '' for the value itself. */
export function findCulprit(
  value: unknown,
  transfer: readonly Transferable[] = [],
): { readonly path: string; readonly culprit: unknown } {
  const seen = new Set<unknown>()
  let path = ''
  let culprit = value
  // Ever deeper into the member that does not cross, until all members of it do.
  while (typeof culprit === 'object' && culprit !== null) {
    seen.add(culprit)
    const next = membersOf(culprit).find(([, member]) => !seen.has(member) && !canCross(member, transfer))
    if (!next) break
    path += next[0]
    culprit = next[1]
  }
  return { path, culprit }
}

function kindOf(value: unknown): string {
  if (typeof value !== 'object' || value === null) return `a ${typeof value}`
  const name: unknown = (value as { constructor?: { name?: unknown } }).constructor?.name
  return typeof name === 'string' && name !== '' ? `of class ${name}` : 'an object'
}

/** The members that structured clone looks at, each with the text that leads to it. */
function membersOf(value: object): [string, unknown][] {
  if (value instanceof Map) {
    return [...value].flatMap(([key, member]): [string, unknown][] => [
      ['.keys()', key],
      [`.get(${typeof key === 'string' ? `'${key}'` : String(key)})`, member],
    ])
  }
  if (value instanceof Set) return [...value].map((member) => ['.values()', member])
  return Object.entries(value).map(([key, member]) => [
    Array.isArray(value) && /^\d+$/.test(key) ? `[${key}]` : /^[\w$]+$/.test(key) ? `.${key}` : `['${key}']`,
    member,
  ])
}

/** Looks at every object in a value once, and at whatever holds it. What structured clone ignores is not looked at. */
export function visit(
  value: object,
  look: (member: object) => void,
  hold?: (member: object, holder: object) => void,
): void {
  const seen = new Set<object>([value])
  const add = (member: unknown, holder: object): void => {
    if (typeof member !== 'object' || member === null) return
    hold?.(member, holder)
    seen.add(member)
  }
  // What is added meanwhile has its turn, too.
  for (const current of seen) {
    look(current)
    if (ArrayBuffer.isView(current) || types.isAnyArrayBuffer(current) || types.isProxy(current)) continue
    if (current instanceof Error) continue
    if (current instanceof Map) {
      for (const [key, member] of current) {
        add(key, current)
        add(member, current)
      }
    } else if (current instanceof Set || Array.isArray(current)) {
      for (const member of current) add(member, current)
    } else {
      for (const key of Object.keys(current)) {
        const property = Object.getOwnPropertyDescriptor(current, key)
        // A getter may have effects, and is called by the clone once.
        if (property && 'value' in property) add(property.value, current)
      }
    }
  }
}

/**
 * The same value with some of its members replaced. Whatever holds one is copied as structured clone would: an instance of a
 * class as plain data. All the rest stays what it is, since there may be something in it that only looks like plain data.
 */
export function replace(value: unknown, instead: ReadonlyMap<unknown, unknown>): unknown {
  if (instead.has(value)) return instead.get(value)
  if (typeof value !== 'object' || value === null) return value
  const holders = new Map<object, object[]>()
  visit(
    value,
    () => {},
    (member, holder) => {
      const known = holders.get(member)
      if (known) known.push(holder)
      else holders.set(member, [holder])
    },
  )
  const above = new Set<unknown>()
  const todo = [...instead.keys()] as object[]
  for (let member = todo.pop(); member; member = todo.pop()) {
    for (const holder of holders.get(member) ?? []) {
      if (above.has(holder)) continue
      above.add(holder)
      todo.push(holder)
    }
  }
  return copy(value, instead, above, new Map())
}

/** `above`: what leads to something that is replaced. */
function copy(
  value: unknown,
  instead: ReadonlyMap<unknown, unknown>,
  above: ReadonlySet<unknown>,
  done: Map<unknown, unknown>,
): unknown {
  if (instead.has(value)) return instead.get(value)
  if (!above.has(value)) return value
  if (done.has(value)) return done.get(value)
  const again = (member: unknown): unknown => copy(member, instead, above, done)
  if (Array.isArray(value)) {
    const array: unknown[] = []
    done.set(value, array)
    array.length = value.length
    for (const [key, member] of Object.entries(value)) Reflect.set(array, key, again(member))
    return array
  }
  if (value instanceof Map) {
    const map = new Map()
    done.set(value, map)
    for (const [key, member] of value) map.set(again(key), again(member))
    return map
  }
  if (value instanceof Set) {
    const set = new Set()
    done.set(value, set)
    for (const member of value) set.add(again(member))
    return set
  }
  const object: Record<string, unknown> = {}
  done.set(value, object)
  for (const [key, member] of Object.entries(value as object)) {
    Object.defineProperty(object, key, { value: again(member), enumerable: true, configurable: true, writable: true })
  }
  return object
}
