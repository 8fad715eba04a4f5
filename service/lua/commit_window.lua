-- Writes the result of a window once: only while the job runs, and only for the holder of the lease.
local id, window, token, blob, frames = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local models, at_least, sums = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local job, windows = JOB .. id, WINDOWS .. id

local status = redis.call('HGET', job, 'status')
local committed = redis.call('HGET', windows, window .. ':blob')
if committed == blob and status == 'succeeded' then  -- told again because the answer was lost on its way
    return {'finished'}
end
if committed == blob and status == 'running' then
    return {'accepted', redis.call('HGET', job, 'interactive'), unpack(send_more(id, at_least))}
end
if status ~= 'running' or committed
    or redis.call('HGET', windows, window .. ':lease') ~= token then
    return {'refused'}
end
redis.call('HSET', windows, window .. ':blob', blob, window .. ':frames', frames)
redis.call('HDEL', windows, window .. ':lease')
redis.call('ZREM', FLIGHT .. id, window)
redis.call('HINCRBY', job, 'frames_done', frames)
redis.call('HSET', job, 'models', models)
for index = 9, 8 + 2 * sums, 2 do
    redis.call('HINCRBYFLOAT', job, 'timing:' .. ARGV[index], ARGV[index + 1])
end
for index = 9 + 2 * sums, #ARGV do
    redis.call('HSET', job, 'warning:' .. ARGV[index], '1')
end
local done = redis.call('HINCRBY', job, 'windows_done', 1)
if done == number(job, 'windows_total') then
    changed(id, 'progress', tonumber(window))
    finish(id, 'succeeded', '')
    return {'finished'}
end
for _, name in ipairs({job, PLAN .. id, windows}) do
    redis.call('EXPIRE', name, BELT)
end
changed(id, 'progress', tonumber(window))
return {'accepted', redis.call('HGET', job, 'interactive'), unpack(send_more(id, at_least))}
