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
    reporters: ['default', './test/support/second-try.ts'],
    // Broker tests need a main thread of their own; processes give one to each file.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    dangerouslyIgnoreUnhandledErrors: false,
    // Of `npm run coverage`, which runs the tests of the pool.
    coverage: {
      provider: 'v8',
      reporter: 'text',
      include: ['src/*.ts'],
      // The pool's decisions: whatever branch there is, a test has taken it.
      thresholds: {
        'src/{core,slot,waiters}.ts': { branches: 100 },
      },
    },
  },
})
