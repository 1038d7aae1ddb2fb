import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Measured, Order } from './contender.ts'
import type { Name } from './contenders.ts'

/** One contender in a process of its own. */
export class ContenderProcess {
  readonly name: Name
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown>

  /** `profiles`: a directory for the CPU profiles of its threads. */
  constructor(name: Name, url: string, profiles: string | undefined) {
    this.name = name
    const execArgv = profiles ? ['--cpu-prof', `--cpu-prof-dir=${profiles}/${name.replaceAll(/\W+/g, '-')}`] : []
    this.#child = fork(new URL('./contender.js', import.meta.url), [name, url], { execArgv })
    this.#exit = once(this.#child, 'exit')
  }

  async measure(order: Order): Promise<Measured> {
    this.#child.send(order)
    const died = this.#exit.then(() => {
      throw new Error(`${this.name} ended in the middle of a measurement.`)
    })
    const [measured] = (await Promise.race([once(this.#child, 'message'), died])) as [Measured]
    return measured
  }

  async end(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect()
    await this.#exit
  }
}
