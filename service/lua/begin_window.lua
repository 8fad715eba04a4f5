-- Leave to run a window: counts its start and leases it.
local id, window, token = ARGV[1], ARGV[2], ARGV[3]
local alone, lease_is_live, problem, late = ARGV[4], tonumber(ARGV[5]), ARGV[6], ARGV[7]
local job, windows = JOB .. id, WINDOWS .. id

local status = redis.call('HGET', job, 'status')
if not status then
    return {'skip', 'gone'}
end
if final(status) then
    return {'skip', status}
end
local deadline = tonumber(redis.call('HGET', job, 'deadline'))
if deadline and deadline < now then
    if status == 'queued' then
        finish(id, 'expired', '')
    else
        finish(id, 'failed', late)
    end
    return {'skip', 'late'}
end
if redis.call('HEXISTS', windows, window .. ':blob') == 1 then
    return {'skip', 'committed'}
end
local leased = redis.call('HGET', windows, window .. ':lease')
if leased == token then  -- asked again because the answer was lost on its way
    return {'go', '', number(windows, window .. ':starts'), redis.call('HGET', PLAN .. id, window),
        redis.call('HGET', job, 'static')}
end
local beat = tonumber(redis.call('ZSCORE', FLIGHT .. id, window))
if leased and beat and now - beat < lease_is_live then
    return {'skip', 'running elsewhere'}
end
local starts = number(windows, window .. ':starts')
if starts >= number(job, 'max_attempts') then
    finish(id, 'failed', problem)
    return {'skip', 'worn out', redis.call('HGET', job, 'strategy')}
end
if starts > 0 and alone == '0' then
    return {'skip', 'suspect'}
end

starts = starts + 1
local waited = ''  -- in the queue, where this window is the first
redis.call('HSET', windows, window .. ':starts', starts, window .. ':lease', token)
redis.call('EXPIRE', windows, BELT)
redis.call('ZADD', FLIGHT .. id, now, window)
redis.call('HSET', job, 'attempt', math.max(starts, number(job, 'attempt')))
if status == 'queued' then
    redis.call('HSET', job, 'status', 'running', 'started_at', stamp(now))
    redis.call('ZREM', QUEUED, id)
    reach(id, 'running')
    waited = stamp(now - number(job, 'created_at'))
end
return {'go', waited, starts, redis.call('HGET', PLAN .. id, window), redis.call('HGET', job, 'static')}
