/** Execute of a portal without a name, to its end, and the Sync after which the server answers. */
export const executeAndSync: Buffer = Buffer.concat([
  Buffer.from('E\0\0\0\x09\0\0\0\0\0', 'latin1'),
  Buffer.from('S\0\0\0\x04', 'latin1'),
])

/** Bind of a prepared statement to the portal without a name: all parameters, and the answer, as texts. */
export function bind(statement: string, texts: readonly (string | null)[]): Buffer {
  const name = Buffer.byteLength(statement)
  let length = 1 + 4 + 1 + name + 1 + 2 + 2 + 2
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
