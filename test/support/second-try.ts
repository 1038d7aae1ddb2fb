import type { Reporter, TestCase } from 'vitest/node'

/** Prints why a test needed a second try (`--retry`): a fault that shows now and then is to be seen the first time. */
export default class SecondTry implements Reporter {
  onTestCaseResult(test: TestCase): void {
    if (!test.diagnostic()?.flaky) return
    for (const { message, stack } of test.result().errors ?? []) {
      console.log(`\nneeded a second try: ${test.module.relativeModuleId} > ${test.fullName}\n${message}\n${stack}\n`)
    }
  }
}
