import type { Slot } from './slot.ts'
import type { CloseReason } from './stats.ts'
import type { Waiter } from './waiters.ts'

/** What the shell has to do. It does so in order, and reports what came of it by calling the core again. */
export type Action<C> =
  | { readonly do: 'open'; readonly slot: Slot<C> }
  | { readonly do: 'check'; readonly slot: Slot<C>; readonly ping: boolean }
  | { readonly do: 'close'; readonly slot: Slot<C>; readonly reason: CloseReason }
  | { readonly do: 'reap'; readonly slot: Slot<C> }
  | { readonly do: 'serve'; readonly waiter: Waiter<Slot<C>>; readonly slot: Slot<C> }
  | { readonly do: 'expire'; readonly waiter: Waiter<Slot<C>> }
  | { readonly do: 'fail'; readonly waiter: Waiter<Slot<C>>; readonly error: unknown }
