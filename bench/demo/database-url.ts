import { getEnvironmentData, setEnvironmentData } from 'node:worker_threads'

const key = 'millpond demo: database'

/** Where the demo's database is, for all threads that are started from now on. */
export function setDatabaseUrl(url: string): void {
  setEnvironmentData(key, url)
}

export function databaseUrl(): string {
  return getEnvironmentData(key) as string
}
