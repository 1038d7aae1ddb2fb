import { expect, test } from 'vitest'
import { reportOf } from '../../src/cli/report.ts'
import { sumUp } from '../../src/postgres/limit-sum.ts'
import type { LimitNumbers } from '../../src/postgres/limit-sum.ts'

function report(limit: number, some: Partial<LimitNumbers> = {}, millpond?: LimitNumbers['others']): string {
  const check = sumUp(limit, {
    maxConnections: 100,
    superuserReserved: 3,
    reserved: 5,
    role: 'app',
    superuser: false,
    usesReserved: false,
    roleLimit: 50,
    database: 'orders',
    databaseLimit: -1,
    others: { server: 12, role: 10, database: 4 },
    proxy: false,
    ...some,
  })
  return reportOf({ server: 'db:5432/orders', ...check, ...(millpond && { millpond }) })
}

test('reportOf() aligns the sum, and ends with what follows from it', () => {
  expect(report(41)).toBe(`\
db:5432/orders as "app"

                                    allowed   others now   left
server: max_connections                 100
  superuser_reserved_connections         -3
  reserved_connections                   -5
  for this role                          92           12     80
role "app"                               50           10     40
database "orders"                  no limit            4

A limit of 41 is tight: 40 can be had now, 50 at the most.
Lower the limit to 40, or \`alter role "app" connection limit 51\`, or wait until the others have left.
`)
})

test('reportOf() leaves out what is not withheld from the role', () => {
  expect(report(1, { usesReserved: true })).not.toContain('  reserved_connections')
  expect(report(1, { reserved: undefined })).not.toContain('  reserved_connections')
  const superuser = report(1, { superuser: true, databaseLimit: 7 })
  expect(superuser).not.toContain('superuser_reserved_connections')
  expect(superuser).toMatch(/^ {2}for a superuser +100 +12 +88$/m)
  expect(superuser).toMatch(/^role "app": 50, not for a superuser +no limit +10$/m)
  expect(superuser).toMatch(/^database "orders": 7, not for a superuser +no limit +4$/m)
})

test('reportOf() never shows less than nothing', () => {
  const text = report(1, { databaseLimit: 2 })
  expect(text).toMatch(/^database "orders" +2 +4 +0$/m)
  expect(text).toContain('A limit of 1 is tight: 0 can be had now, 2 at the most.')
})

test('reportOf() tells of a proxy, behind which nothing is impossible', () => {
  const fits = report(10, { proxy: true })
  expect(fits).toContain('A limit of 10 fits: ')
  expect(fits).toContain(
    'A proxy is in between: these are the numbers of the server behind it.\nCompare the limit with',
  )
  expect(report(500, { proxy: true })).toContain(
    'A limit of 500 is tight: it is more than the 50 that the server would give this role.',
  )
})

test('reportOf() says how many of the others are of millpond, and where it matters, that they may count twice', () => {
  expect(report(5, {}, { server: 0, role: 0, database: 0 })).not.toContain('millpond')
  const one = report(5, {}, { server: 1, role: 1, database: 0 })
  expect(one).toContain('Of the others, 1 is a connection of millpond (1 of this role, 0 on this database).\n')
  const tight = report(50, {}, { server: 9, role: 8, database: 4 })
  expect(tight).toContain('9 are connections of millpond (8 of this role, 4 on this database). If they are those')
})
