// Time that passes for one namespace only: what is stored of time moves back, and a reaper's passes follow. The scripts
// are here rather than in lua/, since no process but a test's may ever move time.
import { hostname } from 'node:os'
import { StateError } from '../errors.ts'
import type { Jobs } from '../jobs.ts'
import type { Expired, Reaped } from '../outcomes.ts'
import { reaperOf } from '../recovery.ts'
import { type RedisLink, redisTime } from '../redis.ts'
import type { State } from '../schema/machine.ts'

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** Milliseconds, or a number with its unit. */
export type Duration = number | `${number}${keyof typeof UNITS}`

/** What the passes of a reaper did. */
export interface Passed {
  /** Scheduled jobs that were due. */
  promoted: number
  /** Jobs and attempts that were over their time. */
  expired: Expired[]
  /** Jobs whose worker was gone. */
  reaped: Reaped[]
}

/** Twenty years: what is stored of time stays a time. */
const MAX_MS = 20 * 365 * UNITS.d

const msOf = (time: Duration): number => {
  const [, number, unit] =
    /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(typeof time === 'number' ? `${time}ms` : time) ?? []
  const ms = Math.round(Number(number) * UNITS[unit as keyof typeof UNITS])
  if (!(ms >= 0 && ms <= MAX_MS))
    throw new StateError(
      'INVALID_OPTIONS',
      `${JSON.stringify(time)} is no time like 500, '90s', '15m', '1h', '2d'.`,
    )
  return ms
}

/** As a reaper of default settings: it looks at what has not been touched for longer. */
const IDLE_MS = 2_000
/** Milliseconds that one script may take: a namespace of a test is small. */
const SCRIPT_MS = 10_000

/** Every key of a partition, found without holding Redis up. */
export const keysIn = async (link: RedisLink, prefix: string): Promise<string[]> => {
  const found = new Set<string>()
  let cursor = '0'
  do {
    const reply = (await link.call('SCAN', cursor, 'MATCH', `${prefix}*`, 'COUNT', 1_000)) as [
      string,
      string[],
    ]
    cursor = reply[0]
    for (const key of reply[1]) found.add(key)
  } while (cursor !== '0')
  return [...found]
}

/** ARGV: prefix, milliseconds, number of live workers, their ids, then the keys. */
const SHIFT = `#!lua
local call, match = redis.call, string.match
local prefix, ms, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function int(n) return string.format('%.0f', n) end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive = {}
for i = 4, 3 + count do alive[ARGV[i]] = true end

-- False when the key is gone now.
local function age(key)
  local ttl = call('PTTL', key)
  if ttl == -1 then return true end
  if ttl > ms then return call('PEXPIRE', key, int(ttl - ms)) == 1 end
  call('DEL', key)
  return false
end

local function scores(key, kept)
  local flat = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    if not (kept and kept[flat[i]]) then call('ZADD', key, int(flat[i + 1] - ms), flat[i]) end
  end
end

-- Of the jobs with a tag the states stand in ranges of scores, and from the fourth on expiries go on from there.
local function states(key)
  local flat = call('ZRANGEBYSCORE', key, '4e13', '+inf', 'WITHSCORES')
  for i = 1, #flat, 2 do call('ZADD', key, int(flat[i + 1] - ms), flat[i]) end
end

local function earlier(entry)
  local at, n = match(entry, '^(%d+)%-(%d+)$')
  return int(at - ms) .. '-' .. n
end

local function again(key, write)
  local ttl = call('PTTL', key)
  write()
  if ttl > 0 then call('PEXPIRE', key, int(ttl)) end
end

local function entries(key)
  again(key, function()
    local all = call('XRANGE', key, '-', '+')
    call('DEL', key)
    for _, entry in ipairs(all) do call('XADD', key, earlier(entry[1]), unpack(entry[2])) end
  end)
end

local function times(key)
  again(key, function()
    local all = call('LRANGE', key, 0, -1)
    call('DEL', key)
    for _, at in ipairs(all) do call('RPUSH', key, int(at - ms)) end
  end)
end

local function job(key, id)
  local v = call('HMGET', key, 'now', 'place', 'run', 'createdAt', 'worker')
  local state, fence, flags = match(v[1] or '', '^(%u+) %S+ %S+ (%S+) %S+ (%S+)')
  if not state then return end
  if state == 'SCHEDULED' then call('HSET', key, 'place', int(v[2] - ms)) end
  if state == 'COMPLETED' or state == 'FAILED' or state == 'CANCELLED' then call('HSET', key, 'place', earlier(v[2])) end
  call('HSET', key, 'createdAt', int(v[4] - ms))
  local startedAt, rest = match(v[3] or '', '^(%d+)(.*)$')
  if startedAt then call('HSET', key, 'run', int(startedAt - ms) .. rest) end
  if state == 'PROCESSING' and alive[v[5]] then
    local stop = string.find(flags, 'x', 1, true) and ' x' or ''
    call('SET', prefix .. 'heartbeat:' .. id, fence .. ' ' .. v[5] .. stop, 'PX', match(rest, '%d+'))
  end
end

for i = 4 + count, #ARGV do
  local key = ARGV[i]
  local kind, of = match(string.sub(key, #prefix + 1), '^([^:]+):?(.*)$')
  local kept = kind == 'heartbeat' and alive[match(call('GET', key) or '', ' (%S+)') or '']
    or kind == 'worker' and alive[of]
  if kind == 'workers' and count > 0 then
    -- It lives as long as any of them.
    scores(key, alive)
    kept = true
  end
  if not kept and age(key) then
    if kind == 'job' then job(key, of)
    elseif kind == 'tag' and match(of, ':states$') then states(key)
    elseif kind == 'scheduled' or kind == 'deadlines' or kind == 'tag' then scores(key)
    elseif kind == 'ended' and of == '' then scores(key)
    elseif kind == 'ended' then entries(key)
    elseif kind == 'rate' then times(key) end
  end
end
return 1`

/** ARGV: heartbeat key. Answers the state; of a running job the fence is void and the lease over. */
const KILL = `#!lua
local now, run = unpack(redis.call('HMGET', KEYS[1], 'now', 'run'))
local state = now and string.match(now, '^%u+')
if state ~= 'PROCESSING' then return state end
local time = redis.call('TIME')
local leaseMs = string.match(run, '^%d+ (%d+)')
local startedAt = time[1] * 1000 + math.floor(time[2] / 1000) - leaseMs
local ownerless = string.gsub(now, '^(%S+ %S+ %S+ %d+%-)%S*', '%1')
redis.call('HSET', KEYS[1], 'now', ownerless, 'run', string.format('%.0f', startedAt) .. ' ' .. leaseMs)
redis.call('DEL', ARGV[1])
return state`

/** Moves time on by so much, and does what reapers would have done by then. */
export const shift = async (jobs: Jobs, time: Duration): Promise<Passed> => {
  const ms = msOf(time)
  const alive = (await jobs.workers()).filter(isAlive).map(({ id }) => id)
  for (const { prefix } of ms > 0 ? jobs.transitions.keys : []) {
    const keys = await keysIn(jobs.link, prefix)
    // Sent once: a repeat would move time twice.
    await jobs.link.once(['EVAL', SHIFT, 1, prefix, prefix, ms, alive.length, ...alive, ...keys], SCRIPT_MS)
  }
  // A sweep by itself makes an entry look touched, so after a step all are looked at.
  return passes(jobs, ms > 0 ? 0 : IDLE_MS)
}

/** A worker process of this machine that has not ended; of another machine's nothing is known, so it is taken for gone. */
const isAlive = ({ host, pid }: { host: string; pid: number }): boolean => {
  if (host !== hostname()) return false
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** One round of a reaper that has been there all the while: no amnesty, as after a silence. */
export const passes = async (jobs: Jobs, idleMs: number): Promise<Passed> => {
  for (const { prefix, sweep } of jobs.transitions.keys)
    await jobs.link.call('HSET', sweep, 'at', await redisTime(jobs.link, prefix), 'amnestyUntil', 0)
  // A test that is stopped in a debugger is no silence of Redis.
  const reaper = reaperOf(jobs, { intervalMs: 3_600_000 })
  const { reaped } = await reaper.sweep(idleMs)
  const { expired } = await reaper.expire()
  const { promoted } = await reaper.promote()
  return { promoted: promoted.length, expired, reaped }
}

export const killWorkerOf = async (jobs: Jobs, id: string): Promise<State | null> => {
  const keys = jobs.transitions.keysFor(id)
  return (await jobs.link.call('EVAL', KILL, 1, keys.job(id), keys.heartbeat(id))) as State | null
}
