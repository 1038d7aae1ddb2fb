import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { LimitOption } from '../options.ts'
import { createService } from '../service/index.ts'
import type { Service, ServiceOptions, TasksOptions } from '../service/index.ts'
import { isSingle } from '../service/task-groups.ts'
import { UsageError, about } from './errors.ts'

/** What the command line says of a service. */
export interface Given {
  readonly workers: number | undefined
  readonly limit: number | undefined
  readonly url: string | undefined
}

const whatItMayBe = 'a service, the options of one, or a function that returns either'

type AnyService = Pick<Service<unknown>, 'start' | 'close' | 'stats'>
type Tasks = TasksOptions<unknown> | Readonly<Record<string, TasksOptions<unknown>>>
type Options = Omit<Partial<ServiceOptions<unknown>>, 'tasks'> & { tasks?: Tasks }

/**
 * Loads a module and makes the service that its default export stands for:
 *
 *   a service               is taken as it is; the command line can change nothing
 *   options                 what the command line says takes the place of what they say
 *   a function              is told what the command line says, and returns one of the two; what its options leave out
 *                           is taken from there
 */
export async function loadService(file: string, given: Given): Promise<AnyService> {
  const exported = await defaultExport(file)
  if (isService(exported)) {
    const flags = Object.entries({ '--workers': given.workers, '--limit': given.limit, '--database': given.url })
    const [flag] = flags.find(([, value]) => value !== undefined) ?? []
    if (flag === undefined) return exported
    throw new UsageError(
      `Cannot use ${flag}: "${file}" exports a service that has been made; export its options instead`,
    )
  }
  const isFunction = typeof exported === 'function'
  const returned = isFunction ? await called(file, exported as (told: Given) => unknown, given) : exported
  if (isService(returned)) return returned
  if (typeof returned !== 'object' || returned === null || Array.isArray(returned)) {
    throw new UsageError(
      isFunction
        ? `Cannot run "${file}": the function that it exports must return a service or the options of one`
        : `Cannot run "${file}": its default export must be ${whatItMayBe}`,
    )
  }
  const options = isFunction ? completed(returned, told(given)) : overridden(file, returned, given)
  if (options.limit === undefined) {
    throw new UsageError(`Cannot run "${file}" without a limit: give --limit, or let the module say it`)
  }
  return createService(options as ServiceOptions<unknown>)
}

async function defaultExport(file: string): Promise<unknown> {
  const path = resolve(file)
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
    throw new UsageError(`Cannot find the module "${file}": there is no file ${path}`)
  }
  const module = await (import(pathToFileURL(path).href) as Promise<object>).catch((cause: unknown) => {
    throw about(`Cannot load "${file}"${where(file, cause)}`, cause)
  })
  if ('default' in module) return module.default
  throw new UsageError(`Cannot run "${file}": it has no default export, which must be ${whatItMayBe}`)
}

/** Where a module threw, as far as the error knows. */
function where(file: string, error: unknown): string {
  if (!(error instanceof Error)) return ''
  const [, place] = /((?:file:\/\/)?[^\s(]+\.[cm]?[jt]s:\d+):\d+\)?$/m.exec(error.stack ?? '') ?? []
  if (place !== undefined) return ` (${place})`
  // Only Node, when it ends with such an error, shows the line.
  return error instanceof SyntaxError ? ` (\`node ${file}\` shows where)` : ''
}

/** Without `--database`, the environment says where the database is. */
function told(given: Given): Given {
  return { ...given, url: given.url ?? (process.env['DATABASE_URL'] || undefined) }
}

async function called(file: string, make: (given: Given) => unknown, given: Given): Promise<unknown> {
  try {
    return await make(told(given))
  } catch (cause) {
    throw about(`Cannot run "${file}": its function failed${where(file, cause)}`, cause)
  }
}

/** What the command line says wins. */
function overridden(file: string, options: Options, given: Given): Options {
  if (given.workers !== undefined && !options.tasks) {
    throw new UsageError(`Cannot use --workers: the service of "${file}" has no tasks`)
  }
  return {
    ...options,
    url: given.url ?? options.url ?? told(given).url,
    ...limitOf(given.limit, options.limit),
    ...(options.tasks && { tasks: withWorkers(options.tasks, (own) => given.workers ?? own) }),
  }
}

/** What a function says wins: it has been told. */
function completed(options: Options, given: Given): Options {
  return {
    ...options,
    url: options.url ?? given.url,
    ...(options.limit === undefined && limitOf(given.limit)),
    ...(options.tasks && { tasks: withWorkers(options.tasks, (own) => own ?? given.workers) }),
  }
}

/** A limit keeps its name. */
function limitOf(given: number | undefined, own?: LimitOption): { limit?: LimitOption } {
  if (given === undefined) return own === undefined ? {} : { limit: own }
  return { limit: typeof own === 'object' ? { ...own, connections: given } : given }
}

/** Of one module of tasks, or of each of several. What is no such thing is left to the service to refuse. */
function withWorkers(tasks: Tasks, choose: (own: number | undefined) => number | undefined): Tasks {
  if (isSingle(tasks)) {
    const workers = choose(tasks.workers)
    return workers === undefined ? tasks : { ...tasks, workers }
  }
  if (typeof tasks !== 'object') return tasks
  const groups = Object.entries(tasks).map(([name, group]) => [
    name,
    typeof group === 'object' && group !== null ? withWorkers(group, choose) : group,
  ])
  return Object.fromEntries(groups) as Tasks
}

/** By its shape: it may have been made by another copy of millpond. */
function isService(value: unknown): value is AnyService {
  if (typeof value !== 'object' || value === null) return false
  return ['start', 'close', 'stats'].every((name) => typeof (value as Record<string, unknown>)[name] === 'function')
}
