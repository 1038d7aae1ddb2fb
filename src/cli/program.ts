import { createRequire } from 'node:module'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { UsageError, codeOf, inOneLine, masked } from './errors.ts'
import type { DoctorFlags } from './doctor.ts'
import type { RunFlags } from './run.ts'

/** How the process ends. */
const exit = { fine: 0, not: 1, usage: 2 } as const

/** Does what the command line says. Never rejects: what goes wrong is one line of standard error and an exit code. */
export async function main(argv: readonly string[]): Promise<void> {
  try {
    await program().parseAsync(argv)
  } catch (error) {
    // Commander has written its own.
    if (!(error instanceof CommanderError)) process.stderr.write(`millpond: ${inOneLine(error)}\n`)
    // oxlint-disable-next-line no-process-exit -- what a module has begun would keep a process going that has failed
    process.exit(exitCodeOf(error))
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exit.fine : exit.usage
  if (error instanceof UsageError || codeOf(error) === 'ERR_OPTION') return exit.usage
  return error instanceof DoctorError ? exit.usage : exit.not
}

/** The doctor could not look. */
class DoctorError extends Error {}

function program(): Command {
  const whole = new Command('millpond')
    .description('One limit of database connections for all threads of a Node.js service.')
    .version(versionOf(), '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print this, or the help of a command')
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      outputError: (text, write) =>
        write(
          `millpond: ${masked(text.replace(/^error: /, ''))
            .trim()
            .replaceAll('\n', ' ')}\n`,
        ),
    })
    .addHelpText(
      'after',
      `
Examples:
  $ millpond run ./service.js --limit 20 --workers 4
  $ millpond doctor --limit 20

Both take the address of the database from DATABASE_URL. NODE_DEBUG=millpond prints more, stacks included.`,
    )
  addRun(whole)
  addDoctor(whole)
  return whole
}

// What a command is made of is loaded when it is called: help and usage need none of it.

function addRun(whole: Command): void {
  whole
    .command('run')
    .summary('start the service of a module')
    .description('Starts the service of a module. SIGTERM and SIGINT close it: what is under way is finished.')
    .argument('<module>', 'a file whose default export is a service, its options, or a function that returns either')
    .option('-l, --limit <n>', 'connections of all threads together, at the most', wholeNumber(1, 1_000_000))
    .option('-w, --workers <n>', 'threads for tasks, for each module of tasks', wholeNumber(1, 1_024))
    .option('-d, --database <url>', 'the database; better in DATABASE_URL, where other users cannot read it')
    .addHelpText(
      'after',
      `
The default export of the module may be
  options     { tasks, servers, … } of createService; what the command line says wins
  a function  ({ workers, limit, url }) => options; what it returns wins
  a service   made with createService, which no option here can change

Exit codes: 0 closed, 1 the module or the service failed, 2 wrong usage or options`,
    )
    .action(async (file: string, flags: RunFlags) => {
      const { run } = await import('./run.ts')
      await run(file, flags)
    })
}

function addDoctor(whole: Command): void {
  whole
    .command('doctor')
    .summary('tell whether a limit fits the server')
    .description(
      'Tells how many connections the server, the role and the database allow, what others use of them now, and whether a limit fits. Connects once, briefly.',
    )
    .argument('[url]', 'the database; without it, DATABASE_URL or PGHOST and its like')
    .option('-l, --limit <n>', 'the limit to check', wholeNumber(1, 1_000_000), 1)
    .option('--json', 'print it as JSON')
    .option('--timeout-ms <ms>', 'for connecting and asking', wholeNumber(1, 2 ** 31 - 1), 10_000)
    .addHelpText('after', '\nExit codes: 0 it fits, 1 it is tight or can never be had, 2 wrong usage, or no connection')
    .action(async (url: string | undefined, flags: DoctorFlags) => {
      const looked = import('./doctor.ts').then(({ doctor }) => doctor(url, flags))
      const fits = await looked.catch((cause: unknown) => {
        throw new DoctorError('Cannot tell whether the limit fits', { cause })
      })
      process.exitCode = fits ? exit.fine : exit.not
    })
}

function wholeNumber(from: number, to: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= from && value <= to) return value
    throw new InvalidArgumentError(`It must be a whole number from ${from} to ${to}.`)
  }
}

function versionOf(): string {
  const { version } = createRequire(import.meta.url)('millpond/package.json') as { version: string }
  return version
}
