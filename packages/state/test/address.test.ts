// One URL for every kind of Redis.
import { StateError } from '@jobs/state'
import { expect, it } from 'vitest'
import { addressOf, parseAddress } from '../src/address.ts'

it.each([
  ['redis://localhost', 'single', 'localhost:6379', { host: 'localhost', port: 6379 }],
  ['redis://u:p%40w@h:7/3', 'single', 'h:7', { host: 'h', port: 7, username: 'u', password: 'p@w', db: 3 }],
  ['rediss://:pw@[::1]:7', 'single', '[::1]:7', { host: '::1', port: 7, password: 'pw', tls: {} }],
  ['redis+cluster://a:1,b:2', 'cluster', 'a:1,b:2', {}],
  ['rediss+cluster://u:pw@a,b:2/', 'cluster', 'a:6379,b:2', { username: 'u', password: 'pw', tls: {} }],
  [
    'redis+sentinel://:pw@a,b:2/main/4?sentinelPassword=s%20p',
    'sentinel',
    'a:26379,b:2',
    {
      name: 'main',
      db: 4,
      password: 'pw',
      sentinelPassword: 's p',
      sentinels: [
        { host: 'a', port: 26379 },
        { host: 'b', port: 2 },
      ],
    },
  ],
])('reads %s', (url, kind, shown, options) => {
  expect(parseAddress(url)).toMatchObject({ kind, shown, options })
  expect(Object.keys(parseAddress(url).options).sort()).toEqual(Object.keys(options).sort())
})

it.each([
  ['localhost:6379', 'does not look like'],
  ['http://h', 'does not look like'],
  ['redis://:secret@a:1,b:2', 'one host'],
  ['redis://:secret@h:70000', 'port'],
  ['redis://:secret@h/x', 'database'],
  ['redis+cluster://:secret@a:1/2', 'database 0'],
  ['redis+sentinel://:secret@a:1', "master's name"],
  ['redis://:%E0%A4@h', 'percent-encoded'],
  ['redis://:secret@h?sentinelPassword=secret', 'unknown setting'],
])('refuses %s, and does not tell what it holds', (url, why) => {
  expect(() => addressOf(url)).toThrow(StateError)
  expect(() => addressOf(url)).toThrow(why)
  expect(() => addressOf(url)).not.toThrow('secret')
})
