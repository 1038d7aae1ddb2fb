import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { onTestFinished } from 'vitest'

interface ProgramOptions {
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  /** Variables of this process that it does not get. */
  readonly without?: RegExp
}

/** A program of Node's in a process of its own, which the test does not outlive. */
export class Program {
  readonly child: ChildProcess
  readonly exited: Promise<unknown[]>
  stdout = ''
  stderr = ''

  constructor(args: readonly string[], { env, cwd, without = /^(PG|DATABASE_URL$|NODE_)/ }: ProgramOptions) {
    const others = Object.entries(process.env).filter(([name]) => !without.test(name))
    this.child = spawn(process.execPath, args, {
      cwd,
      env: { ...Object.fromEntries(others), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    // Of the process and its pipes: nothing is printed after that.
    this.exited = once(this.child, 'close')
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.stdout += chunk.toString()
    })
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.stderr += chunk.toString()
    })
    onTestFinished(() => void this.child.kill('SIGKILL'))
  }

  /** Its exit code, or the signal that has ended it. */
  async end(): Promise<unknown> {
    const [code, signal] = await this.exited
    return code ?? signal
  }
}
