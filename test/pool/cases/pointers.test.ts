import { readFileSync, readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

// The comments at the head of each file here say, by file and title, which tests elsewhere show a case. `…` stands for
// any words.

const here = dirname(fileURLToPath(import.meta.url))

interface Pointer {
  readonly from: string
  readonly file: string
  readonly title: string
}

function pointersOf(from: string): Pointer[] {
  const [head = ''] = /^(\/\/.*\n)*/.exec(readFileSync(join(here, from), 'utf8')) ?? []
  const text = head.replaceAll(/\n?\/\/ */g, ' ')
  const pointers: Pointer[] = []
  let file = ''
  // A file, or a title in quotes; an apostrophe within a word is none.
  for (const [, path, title] of text.matchAll(/([\w/-]+\.test\.ts)|(?<!\w)'([^']+)'/g)) {
    if (path !== undefined) file = path.startsWith('test/') ? join('../../..', path) : join('..', path)
    else if (title !== undefined) pointers.push({ from, file, title })
  }
  return pointers
}

/** Whether the words of the title come in this order. */
function isIn(line: string, title: string): boolean {
  let at = 0
  return title.split('…').every((part) => {
    const found = line.indexOf(part.trim(), at)
    at = found + part.trim().length
    return found >= 0
  })
}

test('what the cases say of tests elsewhere is so: there is such a file, and such a title in it', () => {
  const pointers = readdirSync(here).flatMap(pointersOf)
  const missing = pointers.filter(({ file, title }) => {
    const text = readFileSync(join(here, file), 'utf8')
    return !text.split('\n').some((line) => isIn(line, title))
  })
  expect(missing).toEqual([])
  expect(pointers.length).toBeGreaterThan(40)
})
