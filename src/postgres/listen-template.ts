import type { ErrorFields } from './frames.ts'
import type { PostgresSettings } from './options.ts'
import { Template } from './template.ts'
import type { Inner, Session } from './template.ts'

type OnNotice = (notice: ErrorFields) => void

/**
 * Makes sessions that pass on what the server says unasked: `notification`, and `parting`, the reason why it ends them at
 * once. postgres.js has one callback for all of its sessions; here each wire hears its own.
 */
export class HearingTemplate extends Template {
  readonly #onNotice: OnNotice | undefined

  constructor(settings: PostgresSettings) {
    super(settings)
    this.#onNotice = (this.options as { onnotice?: OnNotice }).onnotice
  }

  override open(session: Session): Inner {
    const { wire } = session
    // Read once, by the instance that is made right now.
    Object.assign(this.options, {
      onnotify: (channel: string, payload: string) => wire.emit('notification', channel, payload),
      onnotice: (notice: ErrorFields) => {
        if (isParting(notice)) wire.emit('parting', notice)
        this.#onNotice?.(notice)
      },
    })
    return super.open(session)
  }
}

/** An immediate shutdown or a crash is told in a warning, not in an error. `quickdie` is the server's routine for both. */
function isParting({ code, routine }: ErrorFields): boolean {
  return routine === 'quickdie' && (code === '57P01' || code === '57P02')
}
