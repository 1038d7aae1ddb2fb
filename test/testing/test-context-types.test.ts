import { expectTypeOf, test } from 'vitest'
import { createPool } from 'millpond/postgres'
import type { PostgresPool } from 'millpond/postgres'
import type { ServerContext, TaskContext, TaskRun } from 'millpond/service'
import { testContext } from 'millpond/testing'

interface Tasks {
  add: (input: { a: number; b: number }) => Promise<number>
  report: (year: number, context: TaskContext) => Buffer
  limit: number
}
type Module = typeof import('../service/fixtures/tasks.mjs')
type Db = typeof import('../service/fixtures/tasks-db.mjs')

interface Point {
  x: number
  y: number
}

declare const tasks: Tasks
declare const module: Module
declare const plain: PostgresPool
declare const task: (input: number, context: TaskContext) => Promise<string>
declare const caller: (input: number, context: TaskContext<Tasks>) => Promise<string>
declare const typed: (input: undefined, context: TaskContext<unknown, Db>) => Promise<void>
declare const server: (context: ServerContext<Tasks>) => Promise<{ close(): void }>
declare const otherServer: (context: ServerContext<Module, Db>) => Promise<void>

/** Compiled, never called. */
export async function contexts(): Promise<void> {
  const none = testContext()
  void task(1, none)
  void task(1, testContext({ pool: plain }))
  const withTasks = testContext({ pool: plain, tasks, data: 1, onProgress: () => {} })
  void caller(1, withTasks)
  void task(1, withTasks)
  void server(withTasks)
  expectTypeOf(withTasks.run('add', { a: 1, b: 2 })).toEqualTypeOf<TaskRun<number>>()
  expectTypeOf(withTasks.start(server)).toEqualTypeOf<Promise<{ close(): void }>>()
  expectTypeOf(withTasks.progressed).toEqualTypeOf<readonly unknown[]>()
  // @ts-expect-error -- no task
  void withTasks.run('limit')
  // @ts-expect-error -- of another type
  void withTasks.run('add', 5)

  const points = createPool('postgres://', {
    types: {
      point: {
        to: 600,
        from: [600],
        serialize: (point: Point) => String(point.x),
        parse: (): Point => ({ x: 1, y: 2 }),
      },
    },
  })
  const custom = testContext({ pool: points, tasks: module })
  void custom.pool.sql`select ${{ x: 1, y: 2 }}`
  void typed(undefined, custom)
  void custom.start(otherServer)
  // @ts-expect-error -- no type of that pool
  void none.pool.sql`select ${{ x: 1, y: 2 }}`
  // @ts-expect-error -- a pool without the types that the task writes
  void typed(undefined, testContext({ pool: plain }))

  // Some of the tasks are enough where the module is named.
  const fakes = testContext<Tasks>({ pool: plain, tasks: { add: async () => 7 } })
  void server(fakes)
  void caller(1, fakes)
  const typedFakes = testContext<Module, Db>({ pool: points, tasks: { add: ({ a, b }) => a + b } })
  void otherServer(typedFakes)
  // @ts-expect-error -- it returns something else
  testContext<Tasks>({ tasks: { add: async () => 'seven' } })
  // @ts-expect-error -- no option
  testContext({ task: tasks })
}

test('testContext() makes contexts of the types that tasks and servers ask for', () => {
  expectTypeOf(testContext().index).toEqualTypeOf<number>()
})
