/** The table has so many rows. */
export const items = 10_000
/** So many of them are asked for at once. */
export const portion = 100

// The tags of the other contenders say the same.
export const oneRow = 'select id, name, amount from item where id = $1'
export const manyRows = 'select id, name, amount from item where id >= $1 order by id limit $2'

export const setup: readonly string[] = [
  'create table item (id int primary key, name text not null, amount int not null)',
  `insert into item select i, 'item number ' || i, i % 1000 from generate_series(1, ${items}) i`,
  'vacuum analyze item',
]
