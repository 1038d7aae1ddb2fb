import { codeOf } from './errors.ts'
import { loadService } from './service-module.ts'

export interface RunFlags {
  readonly workers?: number
  readonly limit?: number
  readonly database?: string
}

/** Starts the service of a module. It ends with its own signals, or when nothing is left to do. */
export async function run(file: string, { workers, limit, database }: RunFlags): Promise<void> {
  const service = await loadService(file, { workers, limit, url: database })
  process.once('beforeExit', () => void service.close())
  try {
    await service.start()
  } catch (error) {
    // A signal came first; what closes the service then ends the process.
    if (codeOf(error) === 'ERR_SERVICE_CLOSED') return
    throw error
  }
  const most = service.stats().pool?.broker?.limit
  const words = most === undefined ? '' : `, with at most ${most} ${most === 1 ? 'connection' : 'connections'}`
  // Standard output is the service's own.
  process.stderr.write(`millpond: ${file} is running${words}\n`)
}
