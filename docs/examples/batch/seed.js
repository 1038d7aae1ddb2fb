/**
 * As many people as wanted, and nothing that was computed of them.
 *
 * @param {import('millpond/postgres').PostgresPool} pool
 * @param {number} rows
 */
export async function seed(pool, rows) {
  await pool.sql`drop table if exists example_people, example_tokens`
  await pool.sql`create table example_people (id int, email text)`
  await pool.sql`create table example_tokens (id int, token text)`
  await pool.sql`
    insert into example_people
    select i, 'somebody.' || i || '@example.org' from generate_series(1, ${rows}::int) as i`
}
