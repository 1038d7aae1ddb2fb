import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

const folder = fileURLToPath(new URL('../../docs/examples', import.meta.url))

/** One of docs/examples, in a process of its own, as its reader would start it. */
export class Example {
  readonly child: ChildProcess
  readonly exited: Promise<unknown[]>
  stdout = ''
  stderr = ''

  constructor(
    script: string,
    {
      args = [],
      env,
      nodeArgs = [],
    }: { args?: readonly string[]; env: Readonly<Record<string, string>>; nodeArgs?: readonly string[] },
  ) {
    const others = Object.entries(process.env).filter(([name]) => !/^(PG|DATABASE_URL$|NODE_|PORT$|HOST$)/.test(name))
    this.child = spawn(process.execPath, [...nodeArgs, `${folder}/${script}`, ...args], {
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
