import { setTimeout as sleep } from 'node:timers/promises'
import type { Service } from '../../src/service/index.ts'
import type * as tasks from './tasks.ts'
import type { Tally } from './tally.ts'
import type { Database, Done } from './work.ts'
import { work } from './work.ts'

/** Who does how much in each third of a run; the demand moves from thread to thread. */
const thirds = [
  { tasks: 24, requests: 4, main: 2 },
  { tasks: 4, requests: 32, main: 2 },
  { tasks: 12, requests: 12, main: 12 },
] as const

export interface LoadOptions {
  readonly service: Service<typeof tasks>
  readonly way: 'viaMillpond' | 'theUsualWay'
  /** The main thread's own way to the database. */
  readonly main: Database
  readonly seconds: number
  readonly tally: Tally
}

/** Drives a mixed load through all threads: tasks, HTTP requests, queries of the main thread. */
export async function drive({ service, way, main, seconds, tally }: LoadOptions): Promise<void> {
  const [address] = service.addresses('http') as [{ port: number }]
  const path = way === 'viaMillpond' ? '/' : '/usual'
  const startedAt = performance.now()
  const third = (): (typeof thirds)[number] | undefined =>
    thirds[Math.floor(((performance.now() - startedAt) / 1000 / seconds) * thirds.length)]

  const client = async (kind: string, mine: (now: (typeof thirds)[number]) => boolean, once: () => Promise<Done>) => {
    for (let now = third(); now; now = third()) {
      if (!mine(now)) {
        await sleep(20)
        continue
      }
      try {
        tally.succeeded(kind, await once())
      } catch (error) {
        const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined
        tally.failed(kind, typeof code === 'string' ? code : String(error))
        await sleep(5)
      }
    }
  }
  const most = Math.max(...thirds.map((one) => Math.max(one.tasks, one.requests, one.main)))
  await Promise.all(
    Array.from({ length: most }, (_, i) => [
      client(
        'task worker',
        (now) => i < now.tasks,
        () => service.run(way, { queryMs: 4, cpuMs: 1 }),
      ),
      client(
        'server worker',
        (now) => i < now.requests,
        () => request(`http://127.0.0.1:${address.port}${path}`),
      ),
      client(
        'main thread',
        (now) => i < now.main,
        () => work(main, { queryMs: 3, cpuMs: 0 }),
      ),
    ]).flat(),
  )
}

async function request(url: string): Promise<Done> {
  const response = await fetch(url)
  const body = (await response.json()) as Done & { code?: string }
  if (!response.ok) throw Object.assign(new Error(`HTTP ${response.status}`), { code: body.code })
  return body
}
