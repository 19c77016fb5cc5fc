-- Create the job, to run now or at a time to come. The same id, name and payload again is the same job; so is the same
-- key (a digest of the caller's) with the same name and payload, for as long as the key is kept.
local held = key ~= '' and call('GET', PREFIX .. 'key:' .. key)
local digest = key ~= '' and redis.sha1hex(name .. ' ' .. payload)
if held then
  local first, same = string.match(held, '^(%S+) (%S+)$')
  if same ~= digest then return rejected('key_conflict') end
  local known_job = call('HMGET', job_key(first), 'cursor', 'state')
  -- The key may outlive the job.
  if first ~= id or not known_job[2] then return { 'ok', known_job[1] or '0-0', known_job[2] or '', 'repeat', first } end
end
local found = call('HMGET', job_key(id), 'cursor', 'state', 'name')
if found[2] then
  local first = call('XRANGE', events_key(id), '0-1', '0-1')[1]
  if found[3] == name and first and first[2][2] == payload then return { 'ok', found[1], found[2], 'repeat', id } end
  return rejected('conflict', found[2])
end
if judging then return { 'ok', '0-0', 'QUEUED', '', id } end

local set = fields ~= '' and cjson.decode(fields) or {}
local job = { id = id, name = name, attempt = '0', seq = 0, tags = '' }
for i = 1, #set, 2 do job[set[i]] = set[i + 1] end
local delay = wait_from(delayMs, runAt)
local state = delay > 0 and 'SCHEDULED' or 'QUEUED'
local due = delay > 0 and int(NOW + delay)
local events = events_key(id)
-- A stream that outlived its hash would refuse seq 1.
call('DEL', events)
call('XADD', events, '0-1', 'p', payload)
append(job, 'enqueue>' .. state .. ' 0,"name":' .. text(name) .. (due and ',"runAt":' .. due or '') .. told)
-- A new stream takes 4 KB; dumped and restored it takes what it needs. Where RESTORE is forbidden it stays large.
local dump = redis.pcall('DUMP', events)
if type(dump) == 'string' then redis.pcall('RESTORE', events, 0, dump, 'REPLACE') end
local entry = ''
if due then
  call('ZADD', PREFIX .. 'scheduled', due, id)
else
  entry = push(queue_of(job), id)
end
local all = { 'state', state, 'cursor', job.cursor, 'name', name, 'entry', entry, 'createdAt', AT }
for _, value in ipairs(set) do all[#all + 1] = value end
if due then
  all[#all + 1], all[#all + 2] = 'runAt', due
end
if ttlMs ~= '' then
  local expiresAt = int(NOW + tonumber(ttlMs))
  call('ZADD', PREFIX .. 'deadlines', expiresAt, id)
  all[#all + 1], all[#all + 2], all[#all + 3], all[#all + 4] = 'expiresAt', expiresAt, 'deadline', '1'
end
for tag in string.gmatch(job.tags, '%S+') do call('ZADD', tag_key(tag), AT, id) end
if key ~= '' then call('SET', PREFIX .. 'key:' .. key, id .. ' ' .. digest, 'PX', keyMs) end
-- Nobody can watch a job before it is there: nothing is published.
call('HSET', job_key(id), unpack(all))
return { 'ok', job.cursor, state, '', id }
