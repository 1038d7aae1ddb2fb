/** Which servers will do; libpq's words and meanings. */
export const targets = ['any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby'] as const

export type TargetSessionAttrs = (typeof targets)[number]

export function isTarget(value: unknown): value is TargetSessionAttrs {
  return targets.includes(value as TargetSessionAttrs)
}

/** The server is there, and not the one that is wanted. */
export class TargetError extends Error {
  override readonly name = 'TargetError'
}
