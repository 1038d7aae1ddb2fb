// An HTTP service: Fastify on two threads that share a port, two more for what computes, and at most 8 connections in all.
//
//   DATABASE_URL=postgres://… PORT=8080 node docs/examples/http/main.js
import { createService, serverModule, taskModule } from 'millpond/service'

/** @import { AddressInfo } from 'node:net' */
/** @import { TaskModule } from 'millpond/service' */

/** @type {TaskModule<typeof import('./tasks.js')>} */
const tasks = taskModule(new URL('./tasks.js', import.meta.url))

const service = createService({
  url: process.env.DATABASE_URL,
  limit: 8,
  tasks: { module: tasks, workers: 2 },
  servers: {
    http: {
      module: serverModule(new URL('./server.js', import.meta.url)),
      workers: 2,
      data: { host: process.env.HOST ?? '127.0.0.1', port: Number(process.env.PORT ?? 8080) },
    },
  },
  before: async ({ pool }) => {
    await pool.transaction(async (sql) => {
      await sql`drop table if exists example_orders`
      await sql`create table example_orders (customer int, cents int)`
      await sql`
        insert into example_orders
        select 1 + i % 100, 100 + i * 7919 % 100000 from generate_series(1, 20000) as i`
      await sql`create index on example_orders (customer)`
    })
  },
})

// Resolves when both threads are ready. SIGTERM and SIGINT close it: requests are answered, connections close.
await service.start()
const [address] = /** @type {AddressInfo[]} */ (service.addresses('http'))
console.log(`http://${address?.address}:${address?.port}`)
