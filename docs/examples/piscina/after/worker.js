import { createPool } from 'millpond/postgres'

const { sql } = createPool(process.env.DATABASE_URL, { broker: 'reports', max: 10 })

/**
 * The median sale of each month.
 *
 * @param {number} customer
 */
export default function report(customer) {
  return Promise.all(
    Array.from({ length: 12 }, async (_, month) => {
      const sales = await sql`
        select cents from example_sales where customer = ${customer} and month = ${month + 1} order by cents`
      return sales[(sales.length - 1) >> 1]?.['cents']
    }),
  )
}
