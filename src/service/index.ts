/**
 * Services of many threads: tasks and servers, under one limit of connections.
 *
 * @module
 */
export { createService } from './service.ts'
export type { Service, ServicePhase, ServiceStats } from './service.ts'
export { health } from './health.ts'
export type { HealthHandler, HealthOptions, HealthSource } from './health.ts'
export type { ServerStats, ServerThreadStats } from './servers.ts'
export type { ServerState } from './supervise.ts'
export type { EventListener, EventStats, ThreadStats } from './watch-desk.ts'
export type { DroppedEvent, EventThread, ServiceEvent } from './watch-events.ts'
export type { EventLoopStats } from './watch-loop.ts'
export type { GroupedServiceOptions, PlainPoolOptions, ServerOptions, ServiceOptions, TasksOptions } from './options.ts'
export type { ServerContext } from './server-context.ts'
export type { ServerEvent, ServerEvents } from './server-events.ts'
export type { Listenable, ListenOptions } from './listen.ts'
export type { CheckOptions, CheckResult } from './health-check.ts'
export { poolModule, serverModule, taskModule } from './modules.ts'
export type {
  PoolModule,
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
