import { onTestFinished, vi } from 'vitest'
import type { MockInstance } from 'vitest'
import type { Service } from 'millpond/service'

/** Shared memory, for tasks and servers to tell by. */
export function words(count = 1): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(4 * count))
}

/** Keeps the process's warnings to itself until the test has finished. */
export function holdWarnings(): MockInstance<typeof process.emitWarning> {
  const spy = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  onTestFinished(() => spy.mockRestore())
  return spy
}

/** The texts of the warnings from here on. */
export function warnings(): () => string[] {
  const spy = holdWarnings()
  return () => spy.mock.calls.map(([text]) => String(text))
}

/** Where the first thread of a server listens. */
export function portOf(service: Pick<Service<never>, 'addresses'>, server = 'http'): number {
  return (service.addresses(server)[0] as { port: number }).port
}

/** What a promise rejects with. */
export function thrownBy(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}
