import { shown } from '../options.ts'
import { mayHavePassword, redact } from '../postgres/url.ts'

/** A value, for a message, that is the address of a database as likely as not, with its password. */
export function shownUrl(value: unknown): string {
  if (value instanceof URL) return shownUrl(value.href)
  return typeof value === 'string' && mayHavePassword(value) ? redact(value) : shown(value)
}
