/** A promise's outcome, or the signal's reason, whichever comes first. */
export function unlessAborted<T>(promise: PromiseLike<unknown>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal?.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    const off = (): void => signal?.removeEventListener('abort', onAbort)
    promise.then(
      (value) => {
        off()
        resolve(value as T)
      },
      (error: unknown) => {
        off()
        reject(error)
      },
    )
    if (signal?.aborted) onAbort()
  })
}
