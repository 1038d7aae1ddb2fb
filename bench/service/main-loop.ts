// A process that shows how long its main thread's event loop is held up while two other threads compute.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { scenes, settleMs } from './scenes.ts'
import type { Scene } from './scenes.ts'

/** Beyond the millisecond after which the loop is looked at again, in ms. */
export interface Delays {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

async function measure(scene: Scene, url: string, ms: number): Promise<Delays> {
  const end = await scenes[scene](url, ms)
  await sleep(settleMs)
  const resolution = 1
  const delays = monitorEventLoopDelay({ resolution })
  delays.enable()
  await sleep(ms)
  delays.disable()
  const beyond = (ns: number): number => Math.max(0, ns / 1e6 - resolution)
  const measured = { p50: beyond(delays.percentile(50)), p99: beyond(delays.percentile(99)), max: beyond(delays.max) }
  await end()
  return measured
}

const [scene, url, ms] = process.argv.slice(2) as [Scene, string, string]
void measure(scene, url, Number(ms)).then((delays) => process.send?.(delays))
