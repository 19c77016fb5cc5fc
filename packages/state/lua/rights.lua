-- Which of the commands this user may not run; none is run. ARGV: of each the number of its words, then the words.
local refused = {}
local at = 1
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  if not redis.acl_check_cmd(unpack(ARGV, at + 1, at + words)) then
    refused[#refused + 1] = table.concat(ARGV, ' ', at + 1, at + math.min(words, 3))
  end
  at = at + 1 + words
end
return refused
