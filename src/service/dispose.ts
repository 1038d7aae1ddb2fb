/** Disposes of what a server's `start` has returned, if it can be. */
export async function dispose(server: unknown): Promise<void> {
  if (typeof server !== 'object' || server === null) return
  try {
    if (Symbol.asyncDispose in server) await (server as AsyncDisposable)[Symbol.asyncDispose]()
    else if (Symbol.dispose in server) (server as Disposable)[Symbol.dispose]()
  } catch (error) {
    // It is one that `listen` was given.
    if ((error as { code?: unknown } | null)?.code !== 'ERR_SERVER_NOT_RUNNING') throw error
  }
}
