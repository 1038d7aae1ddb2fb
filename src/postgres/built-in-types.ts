import postgres from 'postgres'

type Parse = (text: string) => unknown
type Serialize = (value: unknown) => unknown

/** How values are read and written, by the server's OIDs of their types. */
interface Handlers {
  readonly parsers: Readonly<Record<number, Parse | undefined>>
  readonly serializers: Readonly<Record<number, Serialize | undefined>>
}

let handlers: Handlers | undefined

/** postgres.js's own, whatever the user's are. With values that it knows it does not look into the environment. */
function builtIn(): Handlers {
  handlers ??= postgres({ host: 'nowhere.invalid', max: 1, user: 'nobody', target_session_attrs: 'read-write' })
    .options as unknown as Handlers
  return handlers
}

export function builtInParsers(): Handlers['parsers'] {
  return builtIn().parsers
}

export function builtInSerializers(): Handlers['serializers'] {
  return builtIn().serializers
}
