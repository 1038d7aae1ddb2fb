/**
 * Services of many threads: tasks and servers, under one limit of connections.
 *
 * @module
 */
export { createService } from './service.ts'
export type { Service } from './service.ts'
export type { ServerOptions, ServiceOptions, TasksOptions } from './options.ts'
export { serverModule, taskModule } from './modules.ts'
export type { Run, RunOptions, ServerContext, ServerModule, TaskContext, TaskModule, TaskNames } from './modules.ts'
