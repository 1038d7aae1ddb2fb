import type { Reporter, TestCase } from 'vitest/node'

/** Prints why a test needed a second try (`--retry`): a fault that shows now and then is to be seen the first time. */
export default class SecondTry implements Reporter {
  onTestCaseResult(test: TestCase): void {
    if (!test.diagnostic()?.flaky) return
    for (const { message, stack, diff = '' } of test.result().errors ?? []) {
      const where = `${test.module.relativeModuleId} > ${test.fullName}`
      console.log(`\nneeded a second try: ${where}\n${[message, diff, stack].join('\n')}\n`)
    }
  }
}
