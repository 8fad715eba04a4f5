-- Hands a window back unfinished: the start does not count, and anybody may begin it at once.
local id, window, token = ARGV[1], ARGV[2], ARGV[3]
local windows = WINDOWS .. id
if redis.call('HGET', windows, window .. ':lease') ~= token then
    return false
end
redis.call('HDEL', windows, window .. ':lease')
redis.call('HINCRBY', windows, window .. ':starts', -1)
redis.call('ZADD', FLIGHT .. id, now, window)
return redis.call('HGET', JOB .. id, 'interactive')
