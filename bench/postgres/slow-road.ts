// A process between clients and a server: what the server sends waits for so many ms, and stays in order.
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'

const [port, ms] = process.argv.slice(2).map(Number) as [number, number]

function join(client: Socket): void {
  const server = connect({ port, host: '127.0.0.1', noDelay: true })
  client.setNoDelay(true)
  client.on('data', (chunk) => server.write(chunk))
  // Timers of one duration fire in the order in which they were set.
  server.on('data', (chunk) => void setTimeout(() => client.write(chunk), ms))
  client.on('end', () => server.end())
  server.on('end', () => void setTimeout(() => client.end(), ms))
  client.on('error', () => server.destroy())
  server.on('error', () => client.destroy())
}

const listening = createServer(join).listen(0, '127.0.0.1', () => {
  process.send?.((listening.address() as AddressInfo).port)
})
process.once('disconnect', () => process.exit())
