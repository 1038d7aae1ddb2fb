import { Bench } from 'tinybench'
import type { Contender } from './peers.ts'

/** So many cycles are timed at once: reading the clock takes longer than the floor does. */
const batch = 1_000

/** Acquire and release of an idle connection, in ns. */
export async function cycles(contender: Contender): Promise<number> {
  const bench = new Bench({ time: 150, warmupTime: 30 })
  bench.add('idle', async () => {
    for (let i = 0; i < batch; i++) {
      const lease = await contender.acquire()
      await contender.release(lease)
    }
  })
  const [task] = await bench.run()
  if (task?.result.state !== 'completed') throw new Error(`${contender.name} did not complete`)
  return (task.result.latency.p50 * 1e6) / batch
}
