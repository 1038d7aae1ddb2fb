import { debuglog, inspect } from 'node:util'
import { messageOf } from '../errors.ts'
import { mayHavePassword, redact } from '../postgres/url.ts'

/** The command was called in a way in which it cannot do anything. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** An error of ours that says more exactly what cannot be done, and that keeps the code of its cause. */
export function about(what: string, cause: unknown): Error {
  return Object.assign(new Error(what, { cause }), { code: codeOf(cause) })
}

export function codeOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'code' in error ? error.code : undefined
}

/** One line: what cannot be done, and why. With `NODE_DEBUG=millpond`, all that is known. */
export function inOneLine(error: unknown): string {
  if (debuglog('millpond').enabled) return masked(inspect(error))
  const words: string[] = []
  let one = error
  for (let depth = 0; depth < 5 && one !== undefined; depth++) {
    const more = messageOf(one)
    if (!words.some((word) => word.includes(more))) words.push(more)
    one = one instanceof Error ? one.cause : undefined
  }
  return masked(words.join(': '))
    .replaceAll(/\s*\n\s*/g, ' ')
    .trim()
}

/**
 * The text without passwords: those of the URLs that are in it, and whatever of the command line or the environment may
 * have one, however it is written.
 */
export function masked(text: string): string {
  let shown = text
  for (const secret of secrets()) shown = shown.replaceAll(secret, redact(secret))
  return shown.replaceAll(/\b(?!file:)[a-z][a-z\d+.-]*:\/\/[^\s'"`]*/gi, (url) =>
    !url.startsWith(example) && mayHavePassword(url) ? redact(url) : url,
  )
}

/** What our own texts say of a URL's form. */
const example = 'postgres://user:password@host'

function secrets(): string[] {
  const given = process.argv.slice(2).map((one) => one.replace(/^--?[\w-]+=/, ''))
  return [...given, process.env['DATABASE_URL'] ?? ''].filter(
    (one) => /:.*@/s.test(one) || /^postgres(ql)?:/i.test(one) || /[?&]\w*pass\w*=/i.test(one),
  )
}
