import { EventEmitter } from 'node:events'
import { createPool as createGenericPool } from 'generic-pool'
import { Pool as LightningPool } from 'lightning-pool'
import PgPool from 'pg-pool'
import { Pool as Tarn } from 'tarn'
import { Pool, createBroker } from '../../src/index.ts'
import { FakeDriver } from '../../src/testing/index.ts'

/** A pool of ten connections to nowhere, ours or a peer's. */
export interface Contender {
  readonly name: string
  acquire(): Promise<unknown>
  /** Undefined where nothing has to be waited for. */
  release(lease: unknown): Promise<void> | undefined
  close(): Promise<unknown>
}

const max = 10
const resource = {
  create: async () => ({}),
  destroy: async () => {},
}

/** The least that any pool must do: an array's pop and push, and two promises that are resolved already. */
export function floor(): Contender {
  const idle: unknown[] = Array.from({ length: max }, () => ({}))
  const done = Promise.resolve()
  return {
    name: 'floor',
    acquire: () => Promise.resolve(idle.pop()),
    release(item) {
      idle.push(item)
      return done
    },
    close: () => done,
  }
}

export function millpond(): Contender {
  const pool = new Pool({ driver: new FakeDriver(), max, acquireTimeoutMs: Infinity })
  return {
    name: 'millpond',
    acquire: () => pool.acquire(),
    release: (lease) => (lease as { release(): Promise<void> }).release(),
    close: () => pool.close(),
  }
}

/** With a limit over all threads, of which this is the only one. */
export function millpondWithBroker(): Contender {
  const broker = createBroker({ name: 'bench', limit: max })
  const pool = new Pool({ driver: new FakeDriver(), max, acquireTimeoutMs: Infinity, broker: broker.name })
  return {
    name: 'millpond, with a broker',
    acquire: () => pool.acquire(),
    release: (lease) => (lease as { release(): Promise<void> }).release(),
    async close() {
      await pool.close()
      await broker.close()
    },
  }
}

export function genericPool(): Contender {
  const pool = createGenericPool<object>(resource, { max })
  return {
    name: 'generic-pool',
    acquire: () => pool.acquire(),
    release: (item) => pool.release(item as object),
    async close() {
      await pool.drain()
      await pool.clear()
    },
  }
}

export function tarn(): Contender {
  const pool = new Tarn<object>({
    create: resource.create,
    destroy: resource.destroy,
    min: 0,
    max,
    acquireTimeoutMillis: 2 ** 31 - 1,
  })
  return {
    name: 'tarn',
    acquire: () => pool.acquire().promise,
    release(item) {
      pool.release(item as object)
      return undefined
    },
    close: () => pool.destroy(),
  }
}

export function lightningPool(): Contender {
  const pool = new LightningPool<object>(resource, { max, maxQueue: 1_000_000, acquireTimeoutMillis: 0 })
  return {
    name: 'lightning-pool',
    acquire: () => pool.acquire(),
    release(item) {
      pool.release(item as object)
      return undefined
    },
    close: () => pool.closeAsync(),
  }
}

/** What pg-pool needs of a client. */
class NoClient extends EventEmitter {
  connect(done: () => void): void {
    process.nextTick(done)
  }

  end(done?: () => void): void {
    this.emit('end')
    if (done) process.nextTick(done)
  }

  isConnected(): boolean {
    return true
  }

  ref(): void {}
  unref(): void {}
}

export function pgPool(): Contender {
  const pool = new PgPool({ max, Client: NoClient, idleTimeoutMillis: 60_000 })
  return {
    name: 'pg-pool',
    acquire: () => pool.connect(),
    release(client) {
      ;(client as { release(): void }).release()
      return undefined
    },
    close: () => pool.end(),
  }
}

export const peers: readonly (() => Contender)[] = [genericPool, tarn, lightningPool, pgPool]
