import { defaultWorkers, isSingle } from './task-groups.ts'
import type { ServiceOptions } from './options.ts'

/**
 * Warns where servers may get no connection at all: a task worker that computes gives its idle one back to nobody, so
 * what is left for certain is the limit less the task workers.
 */
export function warnIfNoRoom({ limit, tasks, servers = {}, pool }: ServiceOptions<unknown>): void {
  if (!tasks || Object.keys(servers).length === 0 || pool?.maxIdle === 0) return
  const connections = typeof limit === 'number' ? limit : limit.connections
  const groups = isSingle(tasks) ? [tasks] : Object.values<{ workers?: number }>(tasks)
  const workers = groups.reduce((sum, group) => sum + (group.workers ?? defaultWorkers), 0)
  if (!(connections <= workers)) return
  process.emitWarning(
    `The servers may get no connection: the limit is ${connections}, and each of the ${workers} task workers may keep one while it computes, which leaves 0. Give it a limit of ${workers + 1} or more, or fewer task workers.`,
    'MillpondWarning',
  )
}
