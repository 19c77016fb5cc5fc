-- Create the job, to run now or at a time to come. The same id, name and payload again is the same job; so is the same
-- key (a digest of the caller's) with the same name and payload, for as long as the key is kept.
local held = key ~= '' and call('GET', PREFIX .. 'key:' .. key)
local digest = key ~= '' and redis.sha1hex(name .. ' ' .. payload)
if held then
  local first, same = match(held, '^(%S+) (%S+)$')
  if same ~= digest then return rejected('key_conflict') end
  local old = read(first)
  -- The key may outlive the job.
  if first ~= id or not old then return { 'ok', old and old.cursor or '0-0', old and old.state or '', 'repeat', first } end
end
local found = not fresh and call('EXISTS', job_key(id)) == 1 and read(id)
if found then
  local first = call('XRANGE', events_key(id), '0-2', '0-2')[1]
  if found.name == name and first and first[2][2] == payload then
    return { 'ok', found.cursor, found.state, 'repeat', id }
  end
  return rejected('conflict', found.state)
end
if judging then return { 'ok', '0-0', 'QUEUED', '', id } end

local job = job_of(id, job_key(id), 'NEW 0-0 enqueue 0- 0 - 0 0', nil, name, present(options))
local delay = wait_from(delayMs, runAt)
local due = delay > 0 and int(NOW + delay)
-- A stream of its own would begin with 4 KB; one that is copied takes what it needs. It outdoes one that outlived its job.
if call('COPY', PREFIX .. 'stream', job.events, 'REPLACE') == 0 then
  call('XADD', PREFIX .. 'stream', '0-1', 'e', '1')
  call('COPY', PREFIX .. 'stream', job.events, 'REPLACE')
end
call('XADD', job.events, '0-2', 'e', payload)
enter(job, due and 'SCHEDULED' or 'QUEUED', ',"name":"' .. name .. '"' .. (due and ',"runAt":' .. due or '') .. told)
if due then call('ZADD', SCHEDULED, due, id) end
local place = due or push(queue_of(job), id)
if options ~= '' then
  put('options', options)
  if job.options.ttlMs then call('ZADD', DEADLINES, int(NOW + job.options.ttlMs), id) end
  for tag in gmatch(job.options.tags or '', '%S+') do call('ZADD', tag_key(tag), AT, id) end
  tell_tags(job, '-', job.state)
end
if key ~= '' then call('SET', PREFIX .. 'key:' .. key, id .. ' ' .. digest, 'PX', keyMs) end
-- Nobody can watch a job before it is there: nothing is published.
call('HSET', job.key, 'now', now_of(job), 'place', place, 'name', name, 'createdAt', AT, unpack(fields, 1, field_count))
return { 'ok', job.cursor, job.state, '', id }
