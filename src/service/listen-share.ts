/** Systems that spread the connections of a port over all who listen on it. */
const systems: ReadonlySet<NodeJS.Platform> = new Set<NodeJS.Platform>(['linux'])

/** Whether threads can share a port here: `reusePort` of `server.listen()`, from Node 22.12 and 23.1 on, on Linux. */
export function canSharePort(
  version: string = process.versions.node,
  platform: NodeJS.Platform = process.platform,
): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const has = major > 23 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12)
  return has && systems.has(platform)
}
