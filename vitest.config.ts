import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/** The package's own name means what was built: code that runs in real threads has to be JavaScript. */
const built = (path: string): string => fileURLToPath(new URL(`./dist/src/${path}`, import.meta.url))

export default defineConfig({
  resolve: {
    alias: [
      { find: /^millpond$/, replacement: built('index.js') },
      { find: /^millpond\/(postgres|service|testing)$/, replacement: built('$1/index.js') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/server.ts'],
    // Broker tests need a main thread of their own; processes give one to each file.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    dangerouslyIgnoreUnhandledErrors: false,
  },
})
