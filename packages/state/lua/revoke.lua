-- Refuse a token, or all that a subject was given so far, for as long as any token lives. `at` is by the clock of who
-- issues tokens, since that is what `iat` was taken from: it may run ahead of Redis' a little, and no further, so that it
-- does not refuse what is yet to come.
local revoked = PREFIX .. 'revoked'
local oldest = int(NOW - LIMITS.tokenLifeMs)
local standing = call('ZCOUNT', revoked, '(' .. oldest, '+inf')
if standing >= LIMITS.revocations and not call('ZSCORE', revoked, what) then return { 'full' } end
call('ZREMRANGEBYSCORE', revoked, '-inf', oldest)
call('ZADD', revoked, 'GT', int(math.min(tonumber(at), NOW + LIMITS.clockAheadMs)), what)
call('PEXPIRE', revoked, int(LIMITS.tokenLifeMs))
-- The moment that stands, which may be a later one than this.
call(PUBLISH, revoked, int(call('ZSCORE', revoked, what)) .. ' ' .. what)
return { 'ok' }
