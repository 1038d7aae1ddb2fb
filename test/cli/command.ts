import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { Program } from '../support/program.ts'

const bin = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url))
const fixtures = fileURLToPath(new URL('fixtures', import.meta.url))

/** What must not be in anything that is printed, whatever happens. */
export const secrets = ['millpond-secret', 'not-to-be-seen']

/** The built command, in a process of its own, in the folder of the fixtures. */
export class Command extends Program {
  constructor(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
    super([bin, ...args], { env, cwd: fixtures })
  }

  override async end(): Promise<unknown> {
    const outcome = await super.end()
    for (const secret of secrets) expect(this.stdout + this.stderr).not.toContain(secret)
    return outcome
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
