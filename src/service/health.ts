import type { IncomingMessage, ServerResponse } from 'node:http'
import { optionTypeError } from '../errors.ts'
import { onlyKnown, shown } from '../options.ts'
import { checkTimeout } from './health-check.ts'
import type { CheckOptions, CheckResult } from './health-check.ts'

export interface HealthOptions {
  /**
   * Where it is asked whether the process lives: a path, without a query.
   * @default '/healthz'
   */
  livePath?: string
  /**
   * Where it is asked whether it can serve.
   * @default '/readyz'
   */
  readyPath?: string
  /**
   * Whether being ready takes a round trip to the database, within the time if one is given. A database that is down, or
   * a pool under load, then takes all instances out of service at once.
   * @default false
   */
  check?: boolean | CheckOptions
}

/** A `Service`, or the context of a server. */
export interface HealthSource {
  ready(): boolean
  check(options?: CheckOptions): Promise<CheckResult>
}

/** Answers a request if it asks for health; says whether it did. */
export type HealthHandler = (request: IncomingMessage, response: ServerResponse) => boolean

/**
 * Makes what answers the probes of an orchestrator. `/healthz`: 200 as long as this thread's event loop runs. `/readyz`: 200
 * when the service is ready, 503 before, while it closes, and when a server has been given up.
 *
 * @example
 * ```ts
 * import { createServer } from 'node:http'
 * import { health } from 'millpond/service'
 * import type { ServerContext } from 'millpond/service'
 *
 * export default async function start(context: ServerContext): Promise<void> {
 *   const probe = health(context)
 *   const server = createServer((request, response) => {
 *     if (probe(request, response)) return
 *     response.end('hello')
 *   })
 *   await context.listen(server, { port: 8080 })
 * }
 * ```
 */
export function health(source: HealthSource, options: HealthOptions = {}): HealthHandler {
  checkSource(source)
  const { livePath, readyPath, check } = checked(options)
  // Probes that come meanwhile are content with the answer.
  let running: Promise<CheckResult> | undefined
  const roundTrip = (): Promise<CheckResult> => {
    running ??= source.check(check === true ? undefined : (check as CheckOptions)).finally(() => (running = undefined))
    return running
  }
  return (request, response) => {
    const { method, url = '' } = request
    if (method !== 'GET' && method !== 'HEAD') return false
    const [path] = url.split('?', 1)
    if (path === livePath) answer(response, 200, { live: true })
    else if (path !== readyPath) return false
    else if (!source.ready()) answer(response, 503, { ready: false })
    else if (check === false) answer(response, 200, { ready: true })
    else {
      roundTrip().then(
        ({ durationMs }) => answer(response, 200, { ready: true, durationMs }),
        // Who asks from outside is told no more than the kind of the error.
        (error: { code?: unknown } | undefined) => answer(response, 503, { ready: false, code: error?.code }),
      )
    }
    return true
  }
}

const optionNames = ['livePath', 'readyPath', 'check']

function checkSource(source: Partial<HealthSource> | null | undefined): void {
  if (typeof source?.ready === 'function' && typeof source.check === 'function') return
  throw optionTypeError('source', `health() takes a service, or the context of a server: got ${shown(source)}.`)
}

function checked(options: HealthOptions): Required<HealthOptions> {
  if (typeof options !== 'object' || options === null) {
    throw optionTypeError('options', `health() takes its options as an object: got ${shown(options)}.`)
  }
  onlyKnown(options, optionNames, 'health()')
  const { livePath = '/healthz', readyPath = '/readyz', check = false } = options
  for (const [name, path] of Object.entries({ livePath, readyPath }) as [string, unknown][]) {
    if (typeof path !== 'string' || !/^\/[^?]*$/.test(path)) {
      throw optionTypeError(name, `${name} must be a path, as in '/healthz': got ${shown(path)}.`)
    }
  }
  if (typeof check !== 'boolean') checkTimeout('check', check)
  return { livePath, readyPath, check }
}

function answer(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' })
  response.end(JSON.stringify(body))
}
