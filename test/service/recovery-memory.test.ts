import { testRecovery } from './recovery/run.ts'

// A full heap can end the whole process instead of the one thread: this file has a process of its own.
testRecovery(['memory'])
