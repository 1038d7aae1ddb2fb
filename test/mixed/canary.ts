import type { PostgresSql } from '../../src/postgres/index.ts'
import type { Here } from './here.ts'

/**
 * What a session shows of those who had it before. The text has nothing in it that looks like a change of the session,
 * which would cause a reset, and goes as a simple query: in others the clock of the statement runs on.
 */
const probe = `
  select current_setting('statement_timeout') as statement_timeout, current_setting('search_path') as search_path,
    current_setting('work_mem') as work_mem, current_setting('mixed.canary', true) as canary,
    current_setting('mixed.hook', true) as hook, current_setting('TimeZone') = (select zone from public.zone_default) as zone,
    current_setting('default_transaction_read_only') as read_only,
    current_setting('default_transaction_isolation') as isolation,
    current_user = 'postgres' and session_user = 'postgres' as own_role,
    current_setting('application_name') as name,
    (select count(*)::int from pg_class where relpersistence = 't' and relnamespace = pg_my_temp_schema()) as tables,
    (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
    (select count(*)::int from pg_listening_channels()) as channels,
    (select count(*)::int from pg_cursors where is_holdable) as cursors,
    (select count(*)::int from pg_prepared_statements where from_sql) as statements,
    (select value from public.fixed where id = 1) as fixed,
    (select string_agg(value::text, ',') from fixed) as shadowed,
    now() = statement_timestamp() and pg_current_xact_id_if_assigned() is null as outside`

/** All but what is the session's own. */
interface Seen {
  readonly name: string
  readonly hook: string | null
  readonly canary: string | null
  readonly outside: boolean
  readonly [column: string]: unknown
}

/** A view of its own, since the name of the one behind it looks like a change of settings. */
export const createCanary = `
  create view zone_default as select reset_val as zone from pg_catalog.pg_settings where name = 'TimeZone';
  create table fixed (id int primary key, value int not null);
  insert into fixed values (1, 42);
  create table contended (id int primary key, value int not null);
  insert into contended values (1, 0)`

const clean = {
  statement_timeout: '0',
  search_path: '"$user", public',
  work_mem: '4MB',
  zone: true,
  read_only: 'off',
  isolation: 'read committed',
  own_role: true,
  tables: 0,
  locks: 0,
  channels: 0,
  cursors: 0,
  statements: 0,
  fixed: 42,
  shadowed: '42',
}

/** Looks for traces of earlier leases: right at the beginning of one, or in a transaction. */
export async function lookForLeaks(sql: PostgresSql, here: Here, where: 'lease' | 'transaction'): Promise<void> {
  await here.attempt(`probe of a ${where}`, async () => {
    const [seen] = await sql.unsafe<Seen[]>(probe)
    if (!seen) throw new Error('no answer to the probe')
    const leaks = Object.entries(clean)
      .filter(([name, value]) => seen[name] !== value)
      .map(([name, value]) => `${name} is ${JSON.stringify(seen[name])} in place of ${JSON.stringify(value)}`)
    const own = here.world.pools.find(({ pool }) => pool === here.pool)
    const index = own ? here.world.pools.indexOf(own) : 0
    // Once set, it is empty after a reset.
    if (seen.canary) leaks.push(`mixed.canary is ${seen.canary}`)
    if (!seen.name.startsWith(`${own?.name} mp`)) leaks.push(`the name is ${seen.name}`)
    if (index === 1 && seen.hook !== 'set') leaks.push(`what onOpen has set is ${seen.hook}`)
    if (where === 'lease' && !seen.outside) leaks.push('a transaction is open')
    if (leaks.length > 0) here.report('leak', where, leaks.join('; '))
  })
}

/** What a lease may leave behind. A number stands for something that is nobody else's. */
export const dirt: readonly ((n: number) => string)[] = [
  () => `set statement_timeout = '77s'`,
  () => `set search_path to pg_catalog`,
  () => `set work_mem = '7MB'`,
  (n) => `set mixed.canary = '${n}'`,
  (n) => `select set_config('mixed.canary', '${n}', false)`,
  (n) => `select 1; select set_config('mixed.canary', '${n}', false); select 2`,
  () => `set time zone 'Asia/Kathmandu'`,
  () => `set role pg_monitor`,
  () => `set session authorization pg_monitor`,
  (n) => `set application_name = 'of ${n}'`,
  () => `set session characteristics as transaction read only`,
  () => `set default_transaction_isolation = 'serializable'`,
  () => `create temp table fixed (id int, value int); insert into fixed values (1, 13)`,
  () => `create temporary table fixed as select 1 as id, 13 as value`,
  () => `select 1 as id, 13 as value into temp fixed`,
  () => `create table pg_temp.fixed (id int, value int)`,
  () => `create temp view fixed as select 1 as id, 13 as value`,
  (n) => `create temp sequence s${n}; select nextval('s${n}')`,
  () => `select setseed(0.5)`,
  () => `load 'auto_explain'`,
  (n) => `select pg_advisory_lock(${n})`,
  (n) => `select pg_try_advisory_lock_shared(${n})`,
  (n) => `listen "c${n}"`,
  (n) => `prepare p${n} as select ${n}`,
  (n) => `prepare p${n} as select ${n}; deallocate p${n}`,
  () => `deallocate all`,
  () => `discard temp`,
  () => `discard all`,
  (n) => `declare c${n} cursor with hold for select 1`,
  (n) => `begin; declare c${n} cursor with hold for select 1; commit`,
  () => `begin`,
  () => `begin; select 1 / 0`,
  () => `begin; set local statement_timeout = '66s'; savepoint one`,
  () => `begin; create temp table fixed (id int, value int); commit; begin`,
  (n) => `do $$ begin perform set_config('mixed.canary', '${n}', false); end $$`,
  (n) => `/* why */ do $$ begin perform pg_advisory_lock(${n}); end $$`,
  () => `begin isolation level serializable read only`,
]

/** Rows of nobody: nothing may commit them. */
export const uncommitted = (n: number): string => `begin; insert into unit_row (unit, row) values (-2, ${n})`
