-- ARGV[3] is 'each' or 'all'; then come the moves: name, number of arguments, arguments. The answer is flat: for each
-- move the number of its strings, then the strings.
local answers, n = {}, 0
local function add(answer)
  local size = #answer
  answers[n + 1] = size
  for i = 1, size do answers[n + 1 + i] = answer[i] end
  n = n + 1 + size
end

-- One broken job must not take the others' moves with it.
local function ruled(at)
  local fine, answer = pcall(run, ARGV[at], at + 1)
  if fine then return answer end
  return { 'error', type(answer) == 'table' and answer.err or tostring(answer) }
end

local function each(visit)
  local at, last = 4, #ARGV
  while at <= last do
    visit(at)
    at = at + 2 + ARGV[at + 1]
  end
end

-- A batch of new jobs, by far the most frequent, is judged by one command. An idempotency key needs more than that.
local function all_new()
  local keys, plain = {}, true
  each(function(at)
    keys[#keys + 1] = job_key(ARGV[at + 2])
    plain = plain and ARGV[at] == 'enqueue' and ARGV[at + 7] == ''
  end)
  return plain and call('EXISTS', unpack(keys)) == 0
end

if ARGV[3] == 'all' then
  fresh = all_new()
end
if ARGV[3] == 'all' and not fresh then
  judging = true
  local refused = false
  local rulings = {}
  each(function(at)
    local ruling = ruled(at)
    rulings[#rulings + 1] = ruling
    refused = refused or ruling[1] ~= 'ok'
  end)
  judging = false
  if refused then
    for _, ruling in ipairs(rulings) do add(ruling[1] == 'ok' and { 'rejected', 'not_alone', '' } or ruling) end
    return answers
  end
end
each(function(at) add(ruled(at)) end)
drop_done()
return answers
