// `npm run bench` runs all benches, `npm run bench -- pool` one of them.
const benches: Readonly<Record<string, () => Promise<{ run(): Promise<void> }>>> = {
  pool: () => import('./pool.ts'),
  broker: () => import('./broker.ts'),
  fairness: () => import('./fairness.ts'),
  postgres: () => import('./postgres.ts'),
  service: () => import('./service.ts'),
}

async function main(names: readonly string[]): Promise<void> {
  for (const name of names.length > 0 ? names : Object.keys(benches)) {
    const bench = benches[name]
    if (!bench) throw new Error(`There is no bench "${name}": there are ${Object.keys(benches).join(', ')}.`)
    console.log(`\n${name}`)
    await (await bench()).run()
  }
}

main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
})
