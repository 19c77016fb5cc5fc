-- Refuse a token, or all that a subject was given so far, for as long as any token lives. `at` is by the clock of who
-- issues tokens, since that is what `iat` was taken from; one that runs ahead must not refuse what is yet to come.
local revoked = PREFIX .. 'revoked'
call('ZREMRANGEBYSCORE', revoked, '-inf', int(NOW - LIMITS.tokenLifeMs))
if call('ZCARD', revoked) >= LIMITS.revocations then return { 'full' } end
local moment = int(math.min(tonumber(at), NOW))
call('ZADD', revoked, 'GT', moment, what)
call('PEXPIRE', revoked, int(LIMITS.tokenLifeMs))
call(PUBLISH, revoked, moment .. ' ' .. what)
return { 'ok' }
