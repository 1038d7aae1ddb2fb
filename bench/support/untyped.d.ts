// The little of some peers that the benches use; they bring no types.

declare module 'generic-pool' {
  export interface Pool<T> {
    acquire(): Promise<T>
    release(resource: T): Promise<void>
    drain(): Promise<void>
    clear(): Promise<void>
  }
  export function createPool<T>(
    factory: { create(): Promise<T>; destroy(resource: T): Promise<void> },
    options: { max: number },
  ): Pool<T>
}

declare module 'pg-pool' {
  export default class Pool {
    constructor(options: { max: number; Client: new () => object; idleTimeoutMillis: number })
    connect(): Promise<{ release(): void }>
    end(): Promise<void>
  }
}

declare module 'pg' {
  export interface Query {
    name?: string
    text: string
    values: unknown[]
  }
  interface Queryable {
    query(query: string | Query): Promise<{ rows: unknown[] }>
  }
  export class Pool implements Queryable {
    constructor(options: { connectionString: string; max: number })
    query(query: string | Query): Promise<{ rows: unknown[] }>
    connect(): Promise<Queryable & { release(): void }>
    end(): Promise<void>
  }
}

declare module 'async-exit-hook' {
  const exitHook: { unhookEvent(event: string): void }
  export default exitHook
}
