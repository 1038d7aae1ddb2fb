import { isMainThread } from 'node:worker_threads'
import type { Clock } from '../clock.ts'
import type { Permits } from '../permits.ts'
import { createBroker } from './broker.ts'
import { joinBroker } from './member.ts'

/**
 * The permits behind the option `limit`. The main thread makes the broker, or finds it, at once: workers that start
 * later must find it. Every other thread joins it with its first use, and never makes one of its own.
 */
export function limitPermits(options: {
  limit: { readonly name: string; readonly connections: number }
  clock: Clock
}): Permits {
  const { limit, clock } = options
  if (isMainThread) createBroker({ name: limit.name, limit: limit.connections })
  return joinBroker({ name: limit.name, clock })
}
