import { Piscina } from 'piscina'
import postgres from 'postgres'
import { seed } from '../seed.js'

const sql = postgres(process.env.DATABASE_URL ?? '', { max: 1, onnotice: () => {} })
await seed(sql)

const piscina = new Piscina({
  filename: new URL('./worker.js', import.meta.url).href,
  minThreads: 4,
  maxThreads: 4,
})

const customers = await sql`select distinct customer from example_sales`
const reports = await Promise.all(customers.map(({ customer }) => piscina.run(customer)))
console.log(`${reports.length} reports, ${reports.flat().reduce((sum, cents) => sum + cents, 0)} cents`)

await piscina.close()
await sql.end()
