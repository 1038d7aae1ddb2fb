import { createHash } from 'node:crypto'

/** @import { TaskContext } from 'millpond/service' */

const rounds = Number(process.env.ROUNDS ?? 20)

/** @typedef {{ id: number, email: string }} Person */

/**
 * Writes a token in place of each address.
 *
 * @param {Person[]} people
 * @param {TaskContext} context
 */
export async function tokenize(people, { pool, throwIfAborted }) {
  const tokens = people.map(({ email }) => {
    throwIfAborted() // seen at once, also where nothing is awaited
    return tokenOf(email)
  })
  await pool.sql`
    insert into example_tokens select * from unnest(${people.map(({ id }) => id)}::int[], ${tokens}::text[])`
  return people.length
}

/**
 * Slow on purpose, so that guessing is, too.
 *
 * @param {string} email
 */
function tokenOf(email) {
  let digest = createHash('sha256').update(email).digest()
  for (let round = 1; round < rounds; round++) digest = createHash('sha256').update(digest).digest()
  return digest.toString('hex')
}
