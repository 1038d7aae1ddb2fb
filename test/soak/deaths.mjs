/** In the text of what a thread throws because it was told to. */
export const planned = 'soak: as planned'

/** How a thread ends itself, or gets into a state in which only others can end it. */
export const die = {
  terminate() {},
  throw() {
    setImmediate(() => {
      throw new Error(planned)
    })
  },
  rejection() {
    void Promise.reject(new Error(planned))
  },
  exit() {
    process.exit(3)
  },
  // Not in one stretch: newer versions of Node end the whole process for that. Numbers, which the collector need not
  // look through: it would take many seconds to give up on objects.
  'out of memory'() {
    const hoard = []
    const grow = () => {
      hoard.push(Array.from({ length: 250_000 }).fill(0.5))
      setImmediate(grow)
    }
    grow()
  },
  'endless loop'() {
    for (;;);
  },
  'Atomics.wait'() {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  },
}

/** The ways that need somebody else to end the thread. */
export const needsTerminate = ['terminate', 'endless loop', 'Atomics.wait']
