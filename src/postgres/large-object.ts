import { Readable, Writable } from 'node:stream'
import type postgres from 'postgres'
import type { PostgresSql } from './sql.ts'

/** What one large object is read and written in: from its opening to its closing. */
export interface LargeObjectGround {
  readonly sql: PostgresSql
  /** It was closed. */
  commit(): Promise<void>
  /** It has failed. */
  rollback(): Promise<void>
}

interface Operations extends AsyncDisposable {
  /** Its number in the database. */
  readonly oid: number
  read(size: number): Promise<[{ data: Uint8Array }]>
  write(data: Uint8Array): Promise<readonly unknown[]>
  seek(offset: number, whence?: number): Promise<readonly unknown[]>
  tell(): Promise<readonly unknown[]>
  truncate(size: number): Promise<readonly unknown[]>
  /** Closes it and commits. */
  close(): Promise<void>
}

/**
 * One large object that is open. It holds its connection, and a transaction on it, until `close()` or the first of its
 * operations that fails; that rolls back. Leaving its `await using` block closes it.
 */
export type LargeObject = Operations & postgres.LargeObject

/** What of it a stream is for: from where it stands, unless it says where. */
interface Range {
  readonly highWaterMark?: number | undefined
  readonly start?: number | undefined
  readonly end?: number | undefined
}

const readAndWrite = 0x2_0000 | 0x4_0000
const defaultChunk = 16_384

/** Opens it; where that fails, nothing is left open. */
export async function openLargeObject(
  ground: LargeObjectGround,
  oid: number | undefined,
  mode: number = readAndWrite,
): Promise<LargeObject> {
  const { sql } = ground
  try {
    const [made] = oid ? [{ oid }] : await sql<[{ oid: number }]>`select lo_creat(-1) as oid`
    const [opened] = await sql<[{ fd: number }]>`select lo_open(${made.oid}, ${mode}) as fd`
    return new OpenLargeObject(ground, made.oid, opened.fd) as unknown as LargeObject
  } catch (error) {
    await ground.rollback()
    throw error
  }
}

/**
 * State
 *   open → closed   by `close()`, the end of its block, or the failure of an operation
 */
class OpenLargeObject implements Operations {
  readonly oid: number
  readonly #ground: LargeObjectGround
  readonly #fd: number
  #closed: Promise<void> | undefined
  #failure: { readonly error: unknown } | undefined

  constructor(ground: LargeObjectGround, oid: number, fd: number) {
    this.#ground = ground
    this.oid = oid
    this.#fd = fd
  }

  read(size: number): Promise<[{ data: Uint8Array }]> {
    return this.#do((sql, fd) => sql`select loread(${fd}, ${size}) as data`)
  }

  write(data: Uint8Array): Promise<readonly unknown[]> {
    return this.#do((sql, fd) => sql`select lowrite(${fd}, ${data})`)
  }

  seek(offset: number, whence = 0): Promise<readonly unknown[]> {
    return this.#do((sql, fd) => sql`select lo_lseek64(${fd}, ${offset}, ${whence})`)
  }

  tell(): Promise<readonly unknown[]> {
    return this.#do((sql, fd) => sql`select lo_tell64(${fd})`)
  }

  truncate(size: number): Promise<readonly unknown[]> {
    return this.#do((sql, fd) => sql`select lo_truncate64(${fd}, ${size})`)
  }

  /** Where it stands, and its size; it stands there afterwards. */
  size(): Promise<readonly unknown[]> {
    return this.#do(
      (sql, fd) => sql`
        select lo_lseek64(${fd}, here, 0) as position, size
        from (select here, lo_lseek64($1, 0, 2) as size from (select lo_tell64($1) as here) told) sought`,
    )
  }

  async readable({ highWaterMark = defaultChunk, start, end = Infinity }: Range = {}): Promise<Readable> {
    if (start !== undefined) await this.seek(start)
    let left = end - (start ?? 0)
    const next = async (size: number): Promise<Uint8Array | null> => {
      const wanted = Math.min(size, left)
      if (wanted <= 0) return null
      const [{ data }] = await this.read(wanted)
      left = data.length < wanted ? 0 : left - data.length
      return data.length > 0 ? data : null
    }
    return new Readable({
      highWaterMark,
      read(size) {
        next(size).then(
          (data) => this.push(data),
          (error: unknown) => this.destroy(error as Error),
        )
      },
    })
  }

  async writable({ highWaterMark = defaultChunk, start }: Range = {}): Promise<Writable> {
    if (start !== undefined) await this.seek(start)
    const write = (chunk: Uint8Array): Promise<unknown> => this.write(chunk)
    return new Writable({
      highWaterMark,
      write(chunk: Uint8Array, _, done) {
        write(chunk).then(() => done(), done)
      },
    })
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  /** As `close()`; after a failure, whoever called the operation has heard of it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure) await this.#ground.rollback()
    else await this.close()
  }

  async #close(): Promise<void> {
    if (this.#failure) throw this.#failure.error
    await this.#do((sql, fd) => sql`select lo_close(${fd})`)
    await this.#ground.commit()
  }

  async #do<R>(operation: (sql: PostgresSql, fd: number) => PromiseLike<unknown>): Promise<R> {
    try {
      return (await operation(this.#ground.sql, this.#fd)) as R
    } catch (error) {
      // Its transaction has failed with it.
      this.#failure ??= { error }
      void this.#ground.rollback()
      throw error
    }
  }
}
