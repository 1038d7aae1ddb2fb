// drizzle-orm's driver for postgres.js: dates and json, prepared statements, transactions in transactions, migrations.
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { eq, relations, sql as text } from 'drizzle-orm'
import { date, integer, jsonb, pgTable, serial, text as string, timestamp } from 'drizzle-orm/pg-core'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import { mode, withClient } from './with-client.mjs'

const users = pgTable('drizzle_users', {
  id: serial('id').primaryKey(),
  name: string('name').notNull(),
  born: date('born'),
  seen: timestamp('seen', { withTimezone: true, mode: 'date' }),
  seenText: timestamp('seen_text', { mode: 'string' }),
  data: jsonb('data'),
  tags: string('tags').array(),
})
const posts = pgTable('drizzle_posts', {
  id: serial('id').primaryKey(),
  userId: integer('user_id').notNull(),
  title: string('title'),
})
const usersToPosts = relations(users, ({ many }) => ({ posts: many(posts) }))
const postsToUser = relations(posts, ({ one }) => ({
  user: one(users, { fields: [posts.userId], references: [users.id] }),
}))

const migrations = `migrations-${mode}`
mkdirSync(`${migrations}/meta`, { recursive: true })
writeFileSync(
  `${migrations}/0000_first.sql`,
  `create table drizzle_users (id serial primary key, name text not null, born date, seen timestamptz, seen_text timestamp, data jsonb, tags text[]);
--> statement-breakpoint
create table drizzle_posts (id serial primary key, user_id int not null, title text); create index on drizzle_posts (user_id);`,
)
const entries = [{ idx: 0, version: '7', when: 1_700_000_000_000, tag: '0000_first', breakpoints: true }]
writeFileSync(`${migrations}/meta/_journal.json`, JSON.stringify({ version: '7', dialect: 'postgresql', entries }))

await withClient(async (client, pool) => {
  const db = drizzle(client, { schema: { users, posts, usersToPosts, postsToUser } })

  await migrate(db, { migrationsFolder: migrations })
  await migrate(db, { migrationsFolder: migrations })

  const seen = new Date('2024-02-03T04:05:06.789Z')
  const row = {
    name: 'Ann',
    born: '1990-01-02',
    seen,
    seenText: '2024-02-03 04:05:06',
    data: { a: [1, 'b'], c: null },
    tags: ['x', 'y,"z'],
  }
  assert.deepEqual(await db.insert(users).values(row).returning(), [{ id: 1, ...row }])
  assert.deepEqual(await db.select().from(users).where(eq(users.seen, seen)), [{ id: 1, ...row }])

  // Its own types hold for each connection, whenever that was opened.
  const many = await Promise.all(Array.from({ length: 6 }, () => db.select().from(users)))
  for (const rows of many) assert.deepEqual(rows, [{ id: 1, ...row }])

  const prepared = db
    .select({ name: users.name })
    .from(users)
    .where(eq(users.id, text.placeholder('id')))
    .prepare('by_id')
  for (let i = 0; i < 3; i++) assert.deepEqual(await prepared.execute({ id: 1 }), [{ name: 'Ann' }])

  await db.transaction(async (tx) => {
    await tx.insert(posts).values({ userId: 1, title: 'one' })
    // Inside of a transaction in it, which is undone.
    await assert.rejects(
      tx.transaction(async (inner) => {
        await inner.insert(posts).values({ userId: 1, title: 'undone' })
        inner.rollback()
      }),
    )
    await tx.transaction((inner) => inner.insert(posts).values({ userId: 1, title: 'two' }))
    // Whatever else is on the pool is part of it.
    if (pool) assert.equal((await pool.sql`select from drizzle_posts`).count, 2)
  })
  await assert.rejects(
    db.transaction(async (tx) => {
      await tx.insert(posts).values({ userId: 1, title: 'undone' })
      await tx.execute(text`select 1 / 0`)
    }),
  )
  if (mode !== 'ambient') {
    const options = { isolationLevel: 'serializable', accessMode: 'read only' }
    const [level] = await db.transaction(
      (tx) => tx.execute(text`select current_setting('transaction_isolation') as level`),
      options,
    )
    assert.equal(level.level, 'serializable')
  }
  const found = await db.query.users.findMany({
    with: { posts: { columns: { title: true }, orderBy: posts.id } },
    columns: { name: true },
  })
  assert.deepEqual(found, [{ name: 'Ann', posts: [{ title: 'one' }, { title: 'two' }] }])

  const wrong = db.transaction((tx) => tx.execute(text`select nothing`))
  await assert.rejects(wrong, (error) => (error.cause ?? error).code === '42703')
})
console.log('drizzle', mode, 'ok')
