import { Framer } from './framer.ts'
import type { FrameVisitor } from './framer.ts'

/** Idle, in a transaction, in a failed transaction; `''` until the session is ready. */
export type TransactionStatus = 'I' | 'T' | 'E' | ''

/** The fields of an ErrorResponse, under the names that postgres.js gives them. */
export type ErrorFields = Readonly<Record<string, string>>

/** A CommandComplete `SELECT 0`. */
export const emptyCommandComplete: Buffer = Buffer.from('C\0\0\0\rSELECT 0\0', 'latin1')

/**
 * What has passed one connection's wire, in both directions. Pure: it is told bytes and answers questions.
 *
 * State
 *   asked      Sync and Query messages sent, and the startup packet: each is answered with one ReadyForQuery
 *   answered   ReadyForQuery messages received
 *   ahead      of the Syncs sent, those of queries that postgres.js does not have yet
 *   atBoundary the answer before that to the next of those has ended, and the reading stops there until it is taken
 *   unsynced   a step of the extended protocol was sent that no Sync has followed yet
 *   status     the byte of the last ReadyForQuery
 *   rows       a DataRow came that no CommandComplete has followed
 *   mend       such rows were ended by an error
 *
 * Always: quiet === (asked - ahead === answered && !unsynced). What postgres.js has promised says nothing about that: its
 * promises settle before the wire is quiet (describe, COPY), or never do (a cursor that was left).
 */
export class Frames {
  status: TransactionStatus = ''
  /** The server's number and key for this session; 0 until they have come. */
  pid = 0
  secret = 0
  /** The server asked for authentication after the login. postgres.js would answer, or end the process in trying. */
  intruded = false
  /** The error with which the server ended the session. */
  fatal: ErrorFields | undefined
  /** Which way a COPY is under way: until all of its data, or that there are no more, has passed. */
  copy: 'in' | 'out' | undefined
  /** A cursor is open: from its first portion that was not all of it. */
  portal = false
  /** Somebody else reads the rows: the reading stops before each. */
  skipsRows = false
  /** A cursor's portion has come and nobody asked for the next one. */
  suspended = false
  /** What comes next is the answer to a query that postgres.js does not have yet. */
  atBoundary = false

  #asked = 0
  #ahead = 0
  #answered = 0
  #unsynced = false
  #rows = false
  #mend = false
  #tags = new Set<string>()
  readonly #in: Framer
  readonly #out: Framer

  constructor() {
    this.#in = new Framer(this.#inbound())
    this.#out = new Framer(this.#outbound(), true)
  }

  /** Nothing that postgres.js has is under way on the wire. */
  get quiet(): boolean {
    return this.#asked - this.#ahead === this.#answered && !this.#unsynced
  }

  /** A message was sent that the server will not answer with a ReadyForQuery before a Sync follows. */
  get midway(): boolean {
    return this.#unsynced
  }

  /** Sync and Query messages sent so far. */
  get asked(): number {
    return this.#asked
  }

  sent(chunk: Buffer): void {
    this.#out.read(chunk)
  }

  /** How many queries have been sent that postgres.js does not have yet. */
  get ahead(): number {
    return this.#ahead
  }

  /** A query was sent that postgres.js does not have yet: whole messages, with one Sync. */
  sentAhead(): void {
    this.#asked++
    this.#ahead++
  }

  /** postgres.js gets the first of those. */
  takeAhead(): void {
    this.#ahead--
    this.atBoundary = false
  }

  /**
   * Reads what the server sent, from an offset on. Returns the chunk's length, or an offset before it: there the
   * reader of this stream has to be shown `emptyCommandComplete` before it reads on. postgres.js forgets its count of
   * rows at a CommandComplete only; after rows that ended in an error, the next answer would begin with holes.
   */
  received(chunk: Buffer, from = 0): number {
    return this.#in.read(chunk, from)
  }

  /** The command tags since the last call, without their counts. */
  takeTags(): ReadonlySet<string> {
    if (this.#tags.size === 0) return noTags
    const tags = this.#tags
    this.#tags = new Set()
    return tags
  }

  #outbound(): FrameVisitor {
    return {
      begins: () => false,
      wants: () => false,
      ends: (type) => {
        switch (type) {
          case startup:
          case toServer.query:
            this.#asked++
            break
          case toServer.sync:
            this.#asked++
            this.#unsynced = false
            this.suspended = false
            break
          case toServer.close:
            this.portal = false
            this.suspended = false
            this.#unsynced = true
            break
          case toServer.execute:
            this.suspended = false
            this.#unsynced = true
            break
          case toServer.copyDone:
          case toServer.copyFail:
            this.copy = undefined
            break
          case toServer.parse:
          case toServer.bind:
          case toServer.describe:
            this.#unsynced = true
            break
        }
      },
    }
  }

  #inbound(): FrameVisitor {
    return {
      begins: (type) => {
        if (this.atBoundary) return true
        if (type === toClient.authentication && this.#answered > 0) {
          this.intruded = true
          return true
        }
        if (type === toClient.dataRow && this.skipsRows) return true
        if (type !== toClient.readyForQuery || !this.#mend) return false
        this.#mend = false
        return true
      },
      wants: (type) => wanted.has(type),
      ends: (type, payload) => {
        switch (type) {
          case toClient.dataRow:
            this.#rows = true
            break
          case toClient.commandComplete:
            this.#rows = false
            this.portal = false
            this.#tags.add(tagOf(payload))
            break
          case toClient.readyForQuery:
            this.#answered++
            this.atBoundary = this.#ahead > 0
            this.status = payload.toString('latin1', 0, 1) as TransactionStatus
            this.#rows = false
            this.suspended = false
            this.portal = false
            this.copy = undefined
            break
          case toClient.errorResponse:
            this.#mend ||= this.#rows
            this.#rows = false
            this.#error(payload)
            break
          case toClient.portalSuspended:
            this.suspended = true
            this.portal = true
            this.#rows = false
            break
          case toClient.copyInResponse:
            this.copy = 'in'
            break
          case toClient.copyOutResponse:
            this.copy = 'out'
            break
          case toClient.copyDone:
            this.copy = undefined
            break
          case toClient.backendKeyData:
            if (payload.length < 8) break
            this.pid = payload.readUInt32BE(0)
            this.secret = payload.readUInt32BE(4)
            break
        }
      },
    }
  }

  #error(payload: Buffer): void {
    const fields = errorFields(payload)
    const severity = fields['severity'] ?? fields['severity_local']
    if (severity === 'FATAL' || severity === 'PANIC') this.fatal ??= fields
  }
}

const startup = 0
/** The type bytes are letters: P is 80, and so on. */
export const toServer = {
  parse: 80,
  bind: 66,
  describe: 68,
  execute: 69,
  close: 67,
  sync: 83,
  query: 81,
  copyDone: 99,
  copyFail: 102,
} as const
export const toClient = {
  parseComplete: 49,
  bindComplete: 50,
  authentication: 82,
  readyForQuery: 90,
  commandComplete: 67,
  errorResponse: 69,
  backendKeyData: 75,
  dataRow: 68,
  portalSuspended: 115,
  copyInResponse: 71,
  copyOutResponse: 72,
  copyDone: 99,
} as const
const noTags: ReadonlySet<string> = new Set()

const wanted: ReadonlySet<number> = new Set([
  toClient.readyForQuery,
  toClient.commandComplete,
  toClient.errorResponse,
  toClient.backendKeyData,
])

/** `INSERT 0 5` is `INSERT`; `CREATE TABLE` stays. */
function tagOf(payload: Buffer): string {
  let end = payload.indexOf(0)
  if (end < 0) end = payload.length
  for (let i = 1; i < end; i++) {
    const digit = payload[i] ?? 0
    if (digit >= 48 && digit <= 57 && payload[i - 1] === 32) return payload.toString('latin1', 0, i - 1)
  }
  return payload.toString('latin1', 0, end)
}

const fieldNames: Readonly<Record<string, string>> = {
  S: 'severity_local',
  V: 'severity',
  C: 'code',
  M: 'message',
  D: 'detail',
  H: 'hint',
  P: 'position',
  p: 'internal_position',
  q: 'internal_query',
  W: 'where',
  s: 'schema_name',
  t: 'table_name',
  c: 'column_name',
  d: 'data type_name',
  n: 'constraint_name',
  F: 'file',
  L: 'line',
  R: 'routine',
}

/** Of an ErrorResponse or a NoticeResponse. */
export function errorFields(payload: Buffer): ErrorFields {
  const fields: Record<string, string> = {}
  let at = 0
  while (at < payload.length && payload[at] !== 0) {
    const end = payload.indexOf(0, at + 1)
    if (end < 0) break
    const name = fieldNames[payload.toString('latin1', at, at + 1)]
    if (name) fields[name] = payload.toString('utf8', at + 1, end)
    at = end + 1
  }
  return fields
}
