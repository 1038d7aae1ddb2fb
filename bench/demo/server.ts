import { createServer } from 'node:http'
import { once } from 'node:events'
import type { ServerContext } from '../../src/service/index.ts'
import { ours } from './ours.ts'
import { usual } from './usual.ts'
import { work } from './work.ts'

/** An HTTP server: every request is a query, through millpond or the usual way. */
export default async function start({ pool, announce }: ServerContext): Promise<AsyncDisposable> {
  const server = createServer((request, response) => {
    const database = request.url === '/usual' ? usual : ours(pool)
    work(database, { queryMs: 2, cpuMs: 0 }).then(
      (done) => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(done)),
      (error: Error & { code?: string }) =>
        response.writeHead(503).end(JSON.stringify({ code: error.code ?? error.message })),
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  announce(server.address())
  return server
}
