-- Forgets a job. Its blobs are garbage from now on, and its upload goes too if it came with the job.
-- For `remembered` milliseconds, if there are any, its id and its name are known to have been a job that expired.
local id, remembered = ARGV[1], tonumber(ARGV[2])
local job = JOB .. id
local tenant = redis.call('HGET', job, 'tenant')
if not tenant then
    return 0
end
finish(id, 'canceled', '')  -- whoever works for it must stop
local clip = redis.call('HGET', job, 'clip')
redis.call('SREM', CLIP_JOBS .. clip, id)
if redis.call('HGET', job, 'clip_owned') == '1' then
    drop_clip(clip)
end
redis.call('ZREM', EXPIRY, id)
redis.call('ZREM', TENANT .. tenant, id)
redis.call('ZADD', GARBAGE, now, 'windows/' .. id .. '/', now, 'renders/' .. id .. '/')
if remembered > 0 then
    redis.call('SET', GONE .. id, tenant, 'PX', remembered)
end
local name = redis.call('HGET', job, 'name')
if name then
    redis.call('PEXPIRE', NAME .. tenant .. ':' .. name, remembered)  -- 0 deletes
end
redis.call('DEL', job, PLAN .. id, WINDOWS .. id, FLIGHT .. id, EVENTS .. id)
return 1
