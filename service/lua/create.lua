-- Accepts a job, or finds the one that its idempotency key, or its name, already made.
local id, tenant, clip_id, static, strategy = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local interactive, deadline, frames = ARGV[6], ARGV[7], ARGV[8]
local queue_limit, tenant_limit, result_ttl, max_attempts = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11], ARGV[12]
local key, body, key_ttl, clip_owned = ARGV[13], ARGV[14], ARGV[15], ARGV[16]
local name = ARGV[17]
local FIRST_WINDOW = 18

local function found(outcome, id)  -- with the record, to save whoever asked a second question
    return {outcome, redis.call('ZRANK', QUEUED, id), redis.call('HGETALL', JOB .. id)}
end

if key ~= '' then
    key = IDEMPOTENCY .. tenant .. ':' .. key
    local known = redis.call('HGET', key, 'job')
    if known and redis.call('EXISTS', JOB .. known) == 1 then
        if redis.call('HGET', key, 'body') ~= body then
            return {'mismatch'}
        end
        return found('known', known)
    end
end
if redis.call('EXISTS', JOB .. id) == 1 then
    return found('known', id)
end
if name ~= '' then
    local known = redis.call('GET', NAME .. tenant .. ':' .. name)
    if known and redis.call('EXISTS', JOB .. known) == 1 then
        return found('known', known)
    end
end
if redis.call('EXISTS', CLIP .. clip_id) == 0 then
    return {'gone'}
end
if redis.call('ZCARD', ACTIVE) >= queue_limit then
    return {'full'}
end
if redis.call('SCARD', HELD .. tenant) >= tenant_limit then
    return {'quota'}
end

local job = JOB .. id
redis.call('HSET', job, 'static', static, 'tenant', tenant, 'strategy', strategy, 'clip', clip_id,
    'clip_owned', clip_owned, 'status', 'queued', 'interactive', interactive, 'created_at', stamp(now), 'deadline', deadline,
    'frames_total', frames, 'windows_total', #ARGV - FIRST_WINDOW + 1, 'next_window', 0,
    'result_ttl', result_ttl, 'max_attempts', max_attempts)
for index = FIRST_WINDOW, #ARGV do
    redis.call('HSET', PLAN .. id, index - FIRST_WINDOW, ARGV[index])
end
redis.call('ZADD', ACTIVE, now, id)
redis.call('ZADD', QUEUED, interactive == '1' and now - 1e10 or now, id)  -- they begin first
redis.call('ZADD', TENANT .. tenant, stamp(now), id)
redis.call('SADD', HELD .. tenant, id)
redis.call('SADD', CLIP_JOBS .. clip_id, id)
if deadline ~= '' then
    redis.call('ZADD', DEADLINES, deadline, id)
end
if key ~= '' then
    redis.call('HSET', key, 'job', id, 'body', body)
    redis.call('EXPIRE', key, key_ttl)
end
if name ~= '' then
    redis.call('HSET', job, 'name', name)
    redis.call('SET', NAME .. tenant .. ':' .. name, id, 'EX', BELT)
end
for _, key in ipairs({job, PLAN .. id, TENANT .. tenant, HELD .. tenant, CLIP .. clip_id, CLIP_JOBS .. clip_id}) do
    redis.call('EXPIRE', key, BELT)
end
reach(id, 'queued')
return found('created', id)
