/**
 * Services of many threads: tasks and servers, under one limit of connections.
 *
 * @module
 */
export { createService } from './service.ts'
export type { Service, ServiceStats } from './service.ts'
export type { GroupedServiceOptions, PlainPoolOptions, ServerOptions, ServiceOptions, TasksOptions } from './options.ts'
export type { ServerContext } from './server-context.ts'
export type { ServerEvent, ServerEvents } from './server-events.ts'
export type { Listenable, ListenOptions } from './listen.ts'
export type { CheckOptions, CheckResult } from './health-check.ts'
export { serverModule, taskModule } from './modules.ts'
export type {
  Run,
  RunAll,
  RunAllOptions,
  RunOptions,
  ServerModule,
  TaskContext,
  TaskModule,
  TaskNames,
  TaskRun,
  TasksOf,
} from './modules.ts'
export type { Cloned } from './cloned.ts'
export { definePool } from './define-pool.ts'
export type { DefinedTypes, PoolDefinition, PoolDefinitionOptions } from './define-pool.ts'
export { TaskDeadlockError, TaskQueueFullError, TaskTimeoutError } from './errors.ts'
export { piscinaOptions } from './piscina.ts'
export type { TaskStats } from './tasks.ts'
export { transfer } from './transfer.ts'
