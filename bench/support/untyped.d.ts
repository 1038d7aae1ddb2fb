// The little of two peers that the benches use; they bring no types.

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
