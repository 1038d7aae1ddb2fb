// Which ways to die are tried in which state. X: in the short form (DEATHS=short), too; x: in the long one only.
//
//   terminate   from above, its event loop idle         outer      the thread above it is terminated, which has never
//   throw       uncaught                                           loaded millpond
//   rejection   unhandled                               owner      the same, and that one has a pool as well
//   exit        process.exit()                          inner      it throws, and the thread above it lives on
//   memory      its heap is full
//   loop        in an endless loop, then terminated
//   wait        in Atomics.wait(), then terminated
const table = `
                      terminate  throw  rejection  exit  memory  loop  wait  outer  owner  inner
enrolling                 X        x        x       X      -      x     x      -      -      -
idle                      X        x        x       x      X      X     x      x      x      X
login unsent              X        -        -       x      -      x     -      x      -      -
login unheard             x        x        -       X      -      -     x      -      x      -
in a transaction          x        -        X       -      x      x     -      x      X      -
running                   X        x        x       x      X      x     X      X      x      x
not to be cancelled       X        -        -       x      -      x     -      -      x      -
retiring                  X        x        -       -      -      x     -      -      -      x
granted                   -        x        x       X      -      X     x      x      -      -
queued                    X        x        -       x      x      -     x      -      x      -
reaping                   X        x        -       x      -      -     x      x      -      -
`

export type Kind =
  | 'terminate'
  | 'throw'
  | 'rejection'
  | 'exit'
  | 'memory'
  | 'loop'
  | 'wait'
  | 'outer'
  | 'owner'
  | 'inner'

export type Phase =
  | 'enrolling'
  | 'idle'
  | 'login unsent'
  | 'login unheard'
  | 'in a transaction'
  | 'running'
  | 'not to be cancelled'
  | 'retiring'
  | 'granted'
  | 'queued'
  | 'reaping'

export interface Death {
  readonly phase: Phase
  readonly kind: Kind
  readonly short: boolean
}

export const deaths: readonly Death[] = parse()

function parse(): Death[] {
  const [head = '', ...lines] = table.split('\n').filter((line) => line.trim() !== '')
  const kinds = head.trim().split(/\s+/) as Kind[]
  return lines.flatMap((line) => {
    const [, phase, marks] = /^(\S+(?: \S+)*?)\s{2,}(.*)$/.exec(line) ?? []
    return (marks ?? '')
      .trim()
      .split(/\s+/)
      .flatMap((mark, i) =>
        mark === '-' ? [] : [{ phase: phase as Phase, kind: kinds[i] as Kind, short: mark === 'X' }],
      )
  })
}
