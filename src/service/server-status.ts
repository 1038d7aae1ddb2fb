const words = { unready: 0, ready: 1 } as const

/** How a service is, as all its threads see it: one word of shared memory. */
export type Status = keyof typeof words

export function createStatus(): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4))
}

export function setStatus(status: Int32Array, to: Status): void {
  Atomics.store(status, 0, words[to])
}

export function isReady(status: Int32Array): boolean {
  return Atomics.load(status, 0) === words.ready
}
