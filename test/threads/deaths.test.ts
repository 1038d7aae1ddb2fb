import { testDeaths } from './deaths/run.ts'

testDeaths((kind) => kind !== 'memory')
