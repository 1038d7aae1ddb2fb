import { fileURLToPath } from 'node:url'
import { Program } from '../support/program.ts'

const folder = fileURLToPath(new URL('../../docs/examples', import.meta.url))

interface ExampleOptions {
  readonly args?: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly nodeArgs?: readonly string[]
}

/** One of docs/examples, in a process of its own, as its reader would start it. */
export class Example extends Program {
  constructor(script: string, { args = [], env, nodeArgs = [] }: ExampleOptions) {
    super([...nodeArgs, `${folder}/${script}`, ...args], {
      env,
      without: /^(PG|DATABASE_URL$|NODE_|PORT$|HOST$)/,
    })
  }
}
