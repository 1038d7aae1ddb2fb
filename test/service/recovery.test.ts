import { testRecovery } from './recovery/run.ts'

testRecovery(['terminate', 'exit', 'throw', 'rejection'])
