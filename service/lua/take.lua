-- A leaky bucket in one number: the moment at which everything taken so far has leaked away. Takes a portion,
-- or returns by how many seconds it is too early for one.
local key, interval, burst = RATE .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local empty = math.max(tonumber(redis.call('GET', key)) or 0, now) + interval
local early = empty - now - burst
if early > 0 then
    return stamp(early)
end
redis.call('SET', key, stamp(empty), 'PX', math.ceil(burst * 1000))
return '0'
