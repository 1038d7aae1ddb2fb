import { threadId } from 'node:worker_threads'

/** @import { TaskContext } from 'millpond/service' */

const samples = 2_000

/**
 * The mean order of a customer, and the interval that it is in with 95 %, by drawing from the orders again and again.
 *
 * @param {{ customer: number }} input
 * @param {TaskContext} context
 */
export async function estimate({ customer }, { pool, throwIfAborted }) {
  const orders = await pool.sql`select cents from example_orders where customer = ${customer}`
  if (orders.length === 0) return undefined
  const cents = Float64Array.from(orders, (order) => order['cents'])
  const means = Float64Array.from({ length: samples }, () => {
    throwIfAborted() // seen at once, also where nothing is awaited
    return mean(cents.map(() => cents[Math.floor(Math.random() * cents.length)] ?? 0))
  })
  means.sort()
  return { mean: mean(cents), from: means[samples * 0.025], to: means[samples * 0.975], thread: threadId }
}

/** @param {Float64Array} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length
