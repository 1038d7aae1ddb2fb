import { Piscina } from 'piscina'
import { createBroker } from 'millpond'
import { createPool } from 'millpond/postgres'
import { piscinaOptions } from 'millpond/service'
import { seed } from '../seed.js'

// Before the threads: one that was started earlier would not see it.
createBroker({ name: 'reports', limit: 10 })
const { sql } = createPool(process.env.DATABASE_URL, { broker: 'reports', max: 1, onnotice: () => {} })
await seed(sql)

const piscina = new Piscina({
  ...piscinaOptions,
  filename: new URL('./worker.js', import.meta.url).href,
  minThreads: 4,
  maxThreads: 4,
})

const customers = await sql`select distinct customer from example_sales`
const reports = await Promise.all(customers.map(({ customer }) => piscina.run(customer)))
console.log(`${reports.length} reports, ${reports.flat().reduce((sum, cents) => sum + cents, 0)} cents`)

await piscina.close()
await sql.end()
