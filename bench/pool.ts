import { Bench } from 'tinybench'
import { createBroker, Pool } from '../src/index.ts'
import { FakeDriver } from '../src/testing/index.ts'
import { ratioTable } from './support/table.ts'

// What an acquire and a release of an idle connection cost, against the floor: the least that any pool must do, an
// array's pop and push and two promises that are resolved already.

/** Runs the bench and prints its table. */
export async function run(): Promise<void> {
  const broker = createBroker({ name: 'bench', limit: 10 })
  const alone = new Pool({ driver: new FakeDriver(), max: 10 })
  const limited = new Pool({ driver: new FakeDriver(), max: 10, broker: broker.name })
  const idle = [{}]

  const bench = new Bench({ time: 1_000, warmupTime: 300 })
  bench.add('floor', async () => {
    const item = idle.pop()
    await Promise.resolve(item)
    if (item) idle.push(item)
    await Promise.resolve()
  })
  for (const [name, pool] of [
    ['acquire + release', alone],
    ['acquire + release, with a broker', limited],
  ] as const) {
    bench.add(name, async () => {
      const lease = await pool.acquire()
      await lease.release()
    })
  }
  await bench.run()
  console.log(ratioTable(bench, 'floor'))
  await Promise.all([alone.close(), limited.close()])
  await broker.close()
}
