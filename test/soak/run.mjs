// npm run soak. From the environment:
//
//   SOAK_SECONDS        60
//   SOAK_SEED           random; printed
//   SOAK_LIMIT          3 … 8, by the seed
//   SOAK_CALLERS        4 per thread
//   SOAK_LONG_QUERIES   3 beside a hundred other calls
//   SOAK_DIST           the URL of another build
//   SOAK_UNTIL_EXCESS   set: ends with the first count above the limit, and looks at nothing afterwards
//
// With --json the verdict is printed for programs.
import { Random } from './random.mjs'
import { soak } from './soak.mjs'

const env = (name, fallback) => (process.env[name] ? Number(process.env[name]) : fallback)

const seed = env('SOAK_SEED', Date.now() % 1_000_000)
const options = {
  seed,
  seconds: env('SOAK_SECONDS', 60),
  limit: env('SOAK_LIMIT', new Random(seed).from(3, 8)),
  callers: env('SOAK_CALLERS', 4),
  longQueries: env('SOAK_LONG_QUERIES', 3),
  untilExcess: process.env.SOAK_UNTIL_EXCESS !== undefined,
  ...(process.env.SOAK_DIST ? { dist: process.env.SOAK_DIST } : {}),
}
const json = process.argv.includes('--json')
if (!json) console.log('soak', JSON.stringify(options))

const { violations, figures } = await soak(options)
if (json) console.log(JSON.stringify({ options, violations, figures }))
else {
  console.log(figures)
  for (const { rule, atMs, detail } of violations) console.log(`\nviolated: ${rule}, after ${atMs} ms\n${detail}`)
  console.log(violations.length === 0 ? '\nnothing was violated' : `\nviolated with SOAK_SEED=${seed}`)
}
// Not exitCode: what looks after the server would put its own in its place.
process.exit(violations.length === 0 ? 0 : 1)
