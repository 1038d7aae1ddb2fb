/** After it, the server answers. */
export const sync: Buffer = message('S', '')
/** Runs the portal without a name, to its end. */
export const execute: Buffer = message('E', '\0\0\0\0\0')

/** A letter and a body of single bytes. */
export function message(letter: string, body: string): Buffer {
  const bytes = Buffer.from(`${letter}\0\0\0\0${body}`, 'latin1')
  bytes.writeUInt32BE(bytes.length - 1, 1)
  return bytes
}

/** Bind of a statement, `''` for the one without a name, to the portal without a name: all parameters, and the answer, as texts. */
export function bind(statement: string, texts: readonly (string | null)[]): Buffer {
  let length = 1 + 4 + 1 + Buffer.byteLength(statement) + 1 + 2 + 2 + 2
  for (const text of texts) length += 4 + (text === null ? 0 : Buffer.byteLength(text))
  const bytes = Buffer.allocUnsafe(length)
  bytes[0] = letterB
  let at = bytes.writeUInt32BE(length - 1, 1)
  at = bytes.writeUInt8(0, at)
  at += bytes.write(statement, at)
  at = bytes.writeUInt8(0, at)
  at = bytes.writeUInt16BE(0, at)
  at = bytes.writeUInt16BE(texts.length, at)
  for (const text of texts) {
    const written = text === null ? 0 : bytes.write(text, at + 4)
    bytes.writeInt32BE(text === null ? -1 : written, at)
    at += 4 + written
  }
  bytes.writeUInt16BE(0, at)
  return bytes
}

const letterB = 66
