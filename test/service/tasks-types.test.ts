import { expectTypeOf, test } from 'vitest'
import type { PostgresPool } from 'millpond/postgres'
import { taskModule } from 'millpond/service'
import type {
  Cloned,
  PlainPoolOptions,
  Run,
  RunAll,
  Service,
  TaskContext,
  TaskModule,
  TaskRun,
  TasksOf,
  createService,
  poolModule,
} from 'millpond/service'

interface Invoice {
  readonly id: number
  readonly lines: readonly { title: string; render: () => string }[]
  readonly pdf: Buffer
  total(): number
}

interface Tasks {
  add: (input: { a: number; b: number }) => Promise<number>
  invoice: (id: number, context: TaskContext) => Promise<Invoice>
  nothing: () => void
  optional: (input?: string) => string
  ignores: (input: undefined, context: TaskContext) => Set<Date>
  limit: number
  default: () => void
}

declare const run: Run<Tasks>
declare const runAll: RunAll<Tasks>
declare const create: typeof createService

/** Compiled, never called. */
export function calls(tasks: TaskModule<Tasks>): void {
  expectTypeOf(run('add', { a: 1, b: 2 })).toEqualTypeOf<TaskRun<number>>()
  expectTypeOf(run('nothing')).toEqualTypeOf<TaskRun<void>>()
  expectTypeOf(run('optional', 'text', { timeoutMs: 5 })).toEqualTypeOf<TaskRun<string>>()
  expectTypeOf(run('optional')).toEqualTypeOf<TaskRun<string>>()
  expectTypeOf(run('ignores')).toEqualTypeOf<TaskRun<Set<Date>>>()
  expectTypeOf(run('ignores', undefined, { priority: 1 })).toExtend<Promise<Set<Date>>>()
  expectTypeOf(run('invoice', 7)).toEqualTypeOf<
    TaskRun<{ readonly id: number; readonly lines: { title: string }[]; readonly pdf: Buffer }>
  >()
  expectTypeOf(runAll('add', [{ a: 1, b: 2 }])).toEqualTypeOf<AsyncGenerator<number, void, undefined>>()
  // @ts-expect-error -- it needs an input
  void run('add')
  // @ts-expect-error -- of another type
  void run('add', 5)
  // @ts-expect-error -- no function
  void run('limit')
  // @ts-expect-error -- no task
  void run('default')
  // @ts-expect-error -- not exported
  void run('other')
  // @ts-expect-error -- no option
  void run('nothing', undefined, { timeout: 5 })
  // @ts-expect-error -- inputs of another type
  void runAll('add', [5])

  const single = create({ url: 'postgres://', limit: 1, tasks: { module: tasks } })
  expectTypeOf(single).toEqualTypeOf<Service<Tasks>>()
  const grouped = create({ url: 'postgres://', limit: 1, tasks: { shop: { module: tasks }, more: { module: tasks } } })
  expectTypeOf(grouped.run('shop.add', { a: 1, b: 2 })).toEqualTypeOf<TaskRun<number>>()
  expectTypeOf(grouped.run('more.nothing')).toEqualTypeOf<TaskRun<void>>()
  // @ts-expect-error -- without its module's name
  void grouped.run('add', { a: 1, b: 2 })
  // @ts-expect-error -- no task
  void grouped.run('shop.limit')
  expectTypeOf<TasksOf<{ shop: Tasks }>['shop.add']>().toEqualTypeOf<Tasks['add']>()

  // @ts-expect-error -- a hook is a function
  create({ url: 'postgres://', limit: 1, pool: { onOpen: () => undefined } })
  // @ts-expect-error -- so is this
  create({ url: 'postgres://', limit: 1, pool: { password: async () => 'secret' } })
  // @ts-expect-error -- the service has its own
  create({ url: 'postgres://', limit: 1, pool: { limit: 5 } })
  expectTypeOf<PlainPoolOptions['password']>().toEqualTypeOf<string | undefined>()
}

/** Compiled, never called. */
export function pools(make: typeof createService, named: typeof poolModule, url: URL): void {
  const db = named<typeof import('./fixtures/tasks-db.mjs')>(url)
  const typed = make({
    url: db,
    limit: 1,
    before: ({ pool }) => pool.sql`select ${{ x: 1, y: 2 }}`,
    tasks: { module: taskModule<Tasks>(url) },
  })
  void typed.pool.sql`select ${{ x: 1, y: 2 }}`
  expectTypeOf(typed.run('add', { a: 1, b: 2 })).toEqualTypeOf<TaskRun<number>>()
  const grouped = make({ url: db, limit: 1, tasks: { shop: { module: taskModule<Tasks>(url) } } })
  void grouped.pool.sql`select ${{ x: 1, y: 2 }}`
  expectTypeOf(grouped.run('shop.add', { a: 1, b: 2 })).toEqualTypeOf<TaskRun<number>>()
  // Those who name one type only have the others as before.
  const tasksOnly: Service<Tasks> = make<Tasks>({ url: db, limit: 1 })
  for (const plain of [tasksOnly, make({ url, limit: 1 }), make({ url: 'postgres://', limit: 1 })]) {
    expectTypeOf(plain.pool).toEqualTypeOf<PostgresPool>()
    // @ts-expect-error -- no type of that pool
    void plain.pool.sql`select ${{ x: 1, y: 2 }}`
  }
  expectTypeOf(db).toExtend<URL>()
}

/** Compiled, never called. */
export async function contexts(
  plain: TaskContext<Tasks>,
  typed: TaskContext<unknown, typeof import('./fixtures/tasks-db.mjs')>,
): Promise<void> {
  expectTypeOf(plain.run('add', { a: 1, b: 2 })).toEqualTypeOf<TaskRun<number>>()
  // What the definition's types can write is a parameter, and nothing else is.
  void typed.pool.sql`select ${{ x: 1, y: 2 }}`
  // @ts-expect-error -- no type of that pool
  void plain.pool.sql`select ${{ x: 1, y: 2 }}`
}

test('Cloned<T> is what arrives', () => {
  expectTypeOf<Cloned<string | undefined>>().toEqualTypeOf<string | undefined>()
  expectTypeOf<Cloned<unknown>>().toEqualTypeOf<unknown>()
  expectTypeOf<Cloned<Date>>().toEqualTypeOf<Date>()
  expectTypeOf<Cloned<Buffer>>().toEqualTypeOf<Buffer>()
  expectTypeOf<Cloned<Float64Array>>().toEqualTypeOf<Float64Array>()
  expectTypeOf<Cloned<readonly [number, { f: () => void; n: 1 }]>>().toEqualTypeOf<[number, { n: 1 }]>()
  expectTypeOf<Cloned<ReadonlyMap<string, Buffer>>>().toEqualTypeOf<Map<string, Buffer>>()
  expectTypeOf<Cloned<{ a?: number; [Symbol.iterator]: 5 }>>().toEqualTypeOf<{ a?: number }>()
  expectTypeOf<Cloned<() => void>>().toBeNever()
  expectTypeOf<Cloned<RangeError>>().toEqualTypeOf<RangeError>()
})

test('taskModule() refuses what is no file', () => {
  expectTypeOf(taskModule<Tasks>)
    .parameter(0)
    .toEqualTypeOf<URL>()
})
