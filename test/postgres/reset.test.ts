import { describe, expect, test } from 'vitest'
import { Traces, traceOfTag, traceOfText } from '../../src/postgres/reset.ts'

describe('traceOfText()', () => {
  test.each([
    `select set_config('a.b', 'c', false)`,
    'select pg_advisory_lock(1)',
    'select pg_try_advisory_lock_shared(1, 2)',
    'create temp table t as select 1',
    'CREATE TEMPORARY TABLE t (a int)',
    'select 1 into temp t',
    'create table pg_temp.t (a int)',
    'create table pg_temp_12.t (a int)',
    `select nextval('s')`,
    `insert into t select pg_catalog.setval('s', 7)`,
    'do $$ begin end $$',
    '  call procedure()',
    '/* app:web */ call procedure()',
    '-- app\ncall procedure()',
    'select 1; /* a */ -- b\n do $$ begin end $$',
    "update pg_settings set setting = '7MB' where name = 'work_mem'",
    'select 1; listen changes',
    'declare c cursor with hold for select 1',
  ])('traceOfText() sees that the session may be touched: %s', (text) => {
    expect(traceOfText(text)).toBe('session')
  })

  test.each([
    'select * from orders where id = $1',
    'insert into t (a) values ($1) on conflict do nothing',
    'select pg_advisory_xact_lock(1)',
    'select temperature, domain, recall from t',
    'with x as (select 1) update t set a = 1',
    'begin',
    'create table t (a int)',
    `select currval('s'), lastval(), intervals, nextvalue from t`,
  ])('traceOfText() sees nothing that a reset would have to undo: %s', (text) => {
    expect(traceOfText(text)).toBe('nothing')
  })

  test.each([
    'select setseed(0.5)',
    `select dblink_connect('other', 'host=b')`,
    `select pg_replication_origin_session_setup('a')`,
    `select pg_create_logical_replication_slot('a', 'pgoutput', true)`,
  ])('traceOfText() sees what no reset undoes: %s', (text) => {
    expect(traceOfText(text)).toBe('stale')
    const traces = new Traces()
    traces.sent('stale')
    expect(traces.stale).toBe(true)
    // Where it is what onOpen does, it is the session's own.
    traces.adopt()
    expect(traces.stale).toBe(false)
  })

  test.each([
    'set local statement_timeout = 5',
    'SET TRANSACTION ISOLATION LEVEL serializable;',
    'set constraints all deferred',
  ])('traceOfText() knows that the transaction takes it along: %s', (text) => {
    expect(traceOfText(text)).toBe('local')
  })

  test('traceOfText() does not take a statement for local that has another one behind it', () => {
    expect(traceOfText('set local a.b = 1; set c.d = 2')).toBe('nothing')
  })
})

describe('traceOfTag()', () => {
  test.each([
    ['SET', 'session'],
    ['LISTEN', 'session'],
    ['DECLARE CURSOR', 'session'],
    ['DO', 'session'],
    ['PREPARE', 'stale'],
    ['DEALLOCATE ALL', 'stale'],
    ['DISCARD ALL', 'stale'],
    ['LOAD', 'stale'],
    ['PREPARE TRANSACTION', 'nothing'],
    ['SELECT', 'nothing'],
    ['CREATE TABLE', 'nothing'],
  ] as const)('traceOfTag() of %s is %s', (tag, trace) => {
    expect(traceOfTag(tag)).toBe(trace)
  })
})

describe('Traces', () => {
  test('Traces does not count the tag of a statement that is local to its transaction', () => {
    const traces = new Traces()
    traces.answered('local', new Set(['SET']))
    expect(traces.session).toBe(false)
    traces.answered('nothing', new Set(['SET']))
    expect(traces.session).toBe(true)
  })

  test('Traces.sent() counts before the answer: a lock outlives the error of its statement', () => {
    const traces = new Traces()
    traces.sent(traceOfText('select pg_advisory_lock(1), 1/0'))
    expect(traces.session).toBe(true)
  })

  test('Traces.clean() does not forget statements that postgres.js does not know of', () => {
    const traces = new Traces()
    traces.answered('nothing', new Set(['PREPARE', 'SET']))
    traces.clean()
    expect(traces).toMatchObject({ session: false, stale: true })
  })

  test('Traces.adopt() takes what was set and prepared for the session’s own, but forgives no DEALLOCATE', () => {
    const traces = new Traces()
    traces.answered('nothing', new Set(['PREPARE', 'SET']))
    traces.adopt()
    expect(traces).toMatchObject({ session: false, stale: false })
    traces.answered('nothing', new Set(['DEALLOCATE']))
    traces.adopt()
    expect(traces).toMatchObject({ session: false, stale: true })
  })
})
