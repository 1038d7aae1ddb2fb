import { optionTypeError } from '../errors.ts'
import type { Isolation, TransactionOptions } from './transaction-options.ts'

const word =
  /^(?:work|transaction|isolation level (serializable|repeatable read|read committed|read uncommitted)|read (only|write)|(not )?deferrable)(?: |$)/

/**
 * What stands behind BEGIN, as an argument of `sql.begin()`: `'isolation level serializable read only'`. Throws
 * `ERR_OPTION` for what is nothing of the kind: it would go into the statement as it is.
 */
export function beginOptions(text: string): TransactionOptions {
  const options: TransactionOptions = {}
  let rest = text
    .toLowerCase()
    .replaceAll(/[\s,;]+/g, ' ')
    .trim()
  while (rest !== '') {
    const match = word.exec(rest)
    if (!match) {
      throw optionTypeError(
        'options',
        `Cannot begin a transaction with "${text}": allowed are isolation level …, read only, read write, deferrable, not deferrable.`,
      )
    }
    const [whole, isolation, access, not] = match
    if (isolation) options.isolation = isolation as Isolation
    else if (access) options.readOnly = access === 'only'
    else if (whole.trim().endsWith('deferrable')) options.deferrable = not === undefined
    rest = rest.slice(whole.length)
  }
  return options
}
