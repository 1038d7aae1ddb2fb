import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished } from 'vitest'

const bin = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url))
const fixtures = fileURLToPath(new URL('fixtures', import.meta.url))

/** What must not be in anything that is printed, whatever happens. */
export const secrets = ['millpond-secret', 'not-to-be-seen']

/** The built command, in a process of its own, in the folder of the fixtures. */
export class Command {
  readonly child: ChildProcess
  readonly exited: Promise<unknown[]>
  stdout = ''
  stderr = ''

  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    const others = Object.entries(process.env).filter(([name]) => !/^(PG|DATABASE_URL$|NODE_)/.test(name))
    this.child = spawn(process.execPath, [bin, ...args], {
      cwd: fixtures,
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

  /** Its exit code. */
  async end(): Promise<unknown> {
    const [code, signal] = await this.exited
    for (const secret of secrets) expect(this.stdout + this.stderr).not.toContain(secret)
    return code ?? signal
  }
}

/** Runs the command to its end. */
export async function millpond(
  args: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<{ code: unknown; stdout: string; stderr: string }> {
  const command = new Command(args, env)
  const code = await command.end()
  return { code, stdout: command.stdout, stderr: command.stderr }
}

/** Runs it, and expects it to fail: with this code, and one line. Returns the line. */
export async function failure(
  code: number,
  args: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<string> {
  const ran = await millpond(args, env)
  expect(ran).toMatchObject({ code, stdout: '', stderr: expect.stringMatching(/^millpond: .+\n$/) })
  return ran.stderr.trimEnd()
}
