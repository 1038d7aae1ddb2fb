import { threadId } from 'node:worker_threads'
import Fastify from 'fastify'
import { health } from 'millpond/service'

/** @import { ServerContext } from 'millpond/service' */

const params = { type: 'object', properties: { customer: { type: 'integer' } } }

/**
 * Runs once on each thread.
 *
 * @param {ServerContext<typeof import('./tasks.js')>} context
 */
export default async function start(context) {
  const { pool, run, listen, data } = context
  const app = Fastify()

  // The probes of an orchestrator. Hijacked: what answers is not Fastify.
  const probe = health(context)
  for (const path of ['/healthz', '/readyz']) {
    app.get(path, (request, reply) => {
      reply.hijack()
      probe(request.raw, reply.raw)
    })
  }

  app.get('/orders/:customer', { schema: { params } }, async (request, reply) => {
    const { customer } = /** @type {{ customer: number }} */ (request.params)
    const [sum] = await pool.sql`
      select count(*)::int as orders, sum(cents)::int as cents from example_orders
      where customer = ${customer} group by customer`
    return sum ? { ...sum, thread: threadId } : reply.code(404).send({ error: 'no orders' })
  })

  // It computes: on a task worker, so that this thread goes on answering. Given up when the client goes away.
  app.get('/estimate/:customer', { schema: { params } }, async (request, reply) => {
    const { customer } = /** @type {{ customer: number }} */ (request.params)
    const estimate = await run('estimate', { customer }, { signal: request.signal, timeoutMs: 10_000 })
    return estimate ?? reply.code(404).send({ error: 'no orders' })
  })

  await listen(app, /** @type {{ host: string, port: number }} */ (data))
  return app // closed when the server stops, so that its plugins hear of it
}
