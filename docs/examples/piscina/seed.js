/**
 * A table for both programs.
 *
 * @param {import('postgres').Sql<{}>} sql
 */
export async function seed(sql) {
  await sql`drop table if exists example_sales`
  await sql`create table example_sales (customer int, month int, cents int)`
  await sql`
    insert into example_sales
    select 1 + i % 40, 1 + i / 40 % 12, 100 + i * 7919 % 100000 from generate_series(1, 48000) as i`
}
