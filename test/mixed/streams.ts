import { once } from 'node:events'
import { Readable } from 'node:stream'
import type { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { PostgresSql } from '../../src/postgres/index.ts'
import { Wrong, same } from './here.ts'
import type { Here } from './here.ts'
import type { Query } from './queries.ts'

/** Cursors and COPYs with all their ends. Those that somebody leaves to the connection's release are apart. */
export const streams: readonly (readonly [number, Query])[] = [
  [4, { name: 'cursor', run: cursor }],
  [1, { name: 'cursor that fails', fails: '22012', run: failingCursor }],
  [2, { name: 'cursor with a callback', run: cursorCallback }],
  [3, { name: 'copy out', run: (sql, here) => copyOut(sql, here, 'read') }],
  [2, { name: 'copy out, read late', run: (sql, here) => copyOut(sql, here, 'late') }],
  [1, { name: 'copy out, destroyed', run: destroyedCopyOut }],
]

async function cursor(sql: PostgresSql, here: Here): Promise<void> {
  const { random } = here
  const n = here.nonce()
  const count = random.from(0, 40)
  const portions = sql`select ${n}::int as n, g from generate_series(1, ${count}) g`.cursor(random.from(1, 15))
  const leavesAt = random.chance(0.4) ? random.from(0, count + 1) : Infinity
  const throws = random.chance(0.3)
  let seen = 0
  try {
    for await (const rows of portions) {
      for (const row of rows) same([row['n'], row['g']], [n, ++seen])
      if (random.chance(0.1)) await sleep(random.from(0, 3))
      if (seen < leavesAt) continue
      if (throws) throw new Left()
      break
    }
  } catch (error) {
    if (!(error instanceof Left)) throw error
  }
  if (leavesAt > count && seen !== count) throw new Wrong(`${seen} rows of ${count}`)
}

class Left extends Error {}

async function failingCursor(sql: PostgresSql, here: Here): Promise<void> {
  const size = here.random.from(1, 9)
  const text = sql`select 1 / (g - 7) as n from generate_series(1, 20) g`
  if (here.random.chance(0.3)) return void (await text.cursor(size, () => undefined))
  for await (const rows of text.cursor(size)) if (rows.length > size) throw new Wrong(`${rows.length} rows`)
}

async function cursorCallback(sql: PostgresSql, here: Here): Promise<void> {
  const { random } = here
  const n = here.nonce()
  const [count, leavesAt] = [random.from(0, 30), random.chance(0.4) ? random.from(1, 30) : Infinity]
  const how = random.of(['end', 'throw', 'reject'] as const)
  const slow = random.chance(0.3)
  const own = how === 'end' ? undefined : here.error()
  let seen = 0
  await sql`select ${n}::int as n, g from generate_series(1, ${count}) g`.cursor(random.from(1, 9), (rows) => {
    for (const row of rows) if (row['n'] !== n || row['g'] !== ++seen) throw new Wrong(`row ${seen} of another`)
    if (seen < leavesAt) return slow ? sleep(1) : undefined
    if (how === 'throw') throw own
    return how === 'end' ? sql.CLOSE : Promise.reject(own)
  })
  if (leavesAt > count && seen !== count) throw new Wrong(`${seen} rows of ${count}`)
}

const width = 2_000

function copyOutText(n: number, count: number): string {
  return `copy (select rpad('${n}', ${width}, '.') from generate_series(1, ${count})) to stdout`
}

async function copyOut(sql: PostgresSql, here: Here, how: 'read' | 'late'): Promise<void> {
  const { random } = here
  const n = here.nonce()
  const count = random.weighted([
    [5, random.from(0, 5)],
    [2, 100],
    [1, 1_500],
  ])
  const stream = await sql.unsafe(copyOutText(n, count)).readable()
  if (how === 'late') await sleep(random.from(0, 40))
  let bytes = 0
  let wrong: string | undefined
  const look = (chunk: Buffer): void => {
    bytes += chunk.length
    if (!chunk.toString('latin1').startsWith(`${n}.`)) wrong ??= chunk.toString('latin1', 0, 40)
  }
  if (random.chance(0.5)) {
    stream.on('data', look)
    await finished(stream)
  } else {
    for await (const chunk of stream) {
      if (Buffer.isBuffer(chunk))
        for (let at = 0; at < chunk.length; at += width + 1) look(chunk.subarray(at, at + width + 1))
      if (random.chance(0.02)) await sleep(1)
    }
  }
  if (wrong !== undefined) throw new Wrong(`a COPY of another: ${wrong}`)
  same(bytes, count * (width + 1))
}

/** The server may be at its end already; else it is told to cancel. */
async function destroyedCopyOut(sql: PostgresSql, here: Here): Promise<void> {
  const { random } = here
  here.allow('57014', 'ERR_STREAM_PREMATURE_CLOSE')
  const stream = await sql.unsafe(copyOutText(here.nonce(), random.of([3, 200, 3_000]))).readable()
  if (random.chance(0.5)) await sleep(random.from(0, 5))
  if (random.chance(0.5)) {
    await Promise.race([once(stream, 'data'), sleep(1_000)]).catch(() => undefined)
  }
  if (random.chance(0.5)) stream.destroy(here.error())
  else stream.destroy()
}

/** A COPY or a cursor that is left open: the release, or the end of the transaction, has to deal with it. */
export async function abandon(sql: PostgresSql, here: Here): Promise<'cursor' | 'in' | 'out' | 'out of data'> {
  const n = here.nonce()
  const how = here.random.of(['cursor', 'in', 'out', 'out of data'] as const)
  if (how === 'cursor') {
    const iterator = sql`select ${n}::int as n from generate_series(1, 20)`.cursor(3)[Symbol.asyncIterator]()
    kept.add(iterator)
    const { value } = (await iterator.next()) as { value: { n: number }[] }
    same(value, [{ n }, { n }, { n }])
  } else if (how === 'in') {
    const stream = await sql.unsafe('copy unit_row (unit, row) from stdin').writable()
    if (here.random.chance(0.5)) stream.write(`-1\t${n}\n`)
  } else {
    const stream = await sql.unsafe(copyOutText(n, how === 'out' ? 2_000 : 1)).readable()
    if (here.random.chance(0.3)) await Promise.race([once(stream, 'readable'), sleep(100)]).catch(() => undefined)
  }
  return how
}

/** What nobody holds any more is closed; here it is to stay open. */
const kept = new Set<unknown>()

/** What becomes of a COPY that writes these rows of a unit. */
export type CopyInEnd = 'finished' | 'destroyed' | 'refused'

/** Copies rows in. Resolves when the server has confirmed them; rejects with 22P02, or with the error it is destroyed with. */
export async function copyIn(
  sql: PostgresSql,
  here: Here,
  { unit, rows, end }: { unit: number; rows: readonly number[]; end: CopyInEnd },
): Promise<void> {
  const { random } = here
  const stream: Writable = await sql.unsafe('copy unit_row (unit, row) from stdin').writable()
  const lines = rows.map((row) => `${unit}\t${row}\n`)
  if (end === 'refused') lines.splice(random.from(0, lines.length), 0, `${unit}\tnone\n`)
  if (end === 'destroyed') {
    const closed = finished(stream)
    // It may be lost before it is waited for.
    closed.catch(() => undefined)
    for (const line of lines) stream.write(line)
    if (random.chance(0.5)) await sleep(random.from(0, 3))
    const error = here.error()
    stream.destroy(error)
    return await closed
  }
  if (random.chance(0.3)) {
    for (const line of lines) {
      stream.write(line)
      if (random.chance(0.2)) await sleep(1)
    }
    stream.end()
    return await finished(stream)
  }
  Readable.from(lines).pipe(stream)
  await finished(stream)
}
