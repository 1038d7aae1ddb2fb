import { fork } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Order } from './contender.ts'
import type { Name } from './contenders.ts'
import type { Cost, Point } from './points.ts'

/** One contender in a process of its own. */
export class ContenderProcess {
  readonly name: Name
  readonly #child: ChildProcess
  readonly #exit: Promise<unknown>

  /** `profiles`: a directory for its CPU profile. */
  constructor(name: Name, url: string, profiles: string | undefined) {
    this.name = name
    const execArgv = profiles ? ['--cpu-prof', `--cpu-prof-dir=${profiles}`, `--cpu-prof-name=${name}.cpuprofile`] : []
    this.#child = fork(new URL('./contender.js', import.meta.url), [name, url], { execArgv })
    this.#exit = once(this.#child, 'exit')
  }

  async warmUp(ms: number): Promise<void> {
    await this.#carryOut({ ms })
  }

  /** Undefined where it cannot do that. */
  measure(point: Point, ms: number): Promise<Cost | undefined> {
    return this.#carryOut({ point, ms })
  }

  async end(): Promise<void> {
    if (this.#child.connected) this.#child.disconnect()
    await this.#exit
  }

  async #carryOut(order: Order): Promise<Cost | undefined> {
    this.#child.send(order)
    const died = this.#exit.then(() => {
      throw new Error(`${this.name} ended in the middle of a measurement.`)
    })
    const [cost] = (await Promise.race([once(this.#child, 'message'), died])) as [Cost | null]
    return cost ?? undefined
  }
}
