import { shown } from '../options.ts'
import { redact } from '../postgres/url.ts'

/** A value, for a message, that is the address of a database as likely as not, with its password. */
export function shownUrl(value: unknown): string {
  if (value instanceof URL) return shownUrl(value.href)
  return typeof value === 'string' && /@|[?&]\w*pass/i.test(value) ? redact(value) : shown(value)
}
