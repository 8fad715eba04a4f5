-- Words that every script shares. The key names above this line come from steps.py.

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6

local function number(key, name)
    return tonumber(redis.call('HGET', key, name)) or 0
end

-- Seconds as text: Lua's own conversion keeps too few digits to tell two jobs of one millisecond apart.
local function stamp(seconds)
    return string.format('%.6f', seconds)
end

local function changed(id, kind, window)
    local job = JOB .. id
    local data = {
        status = redis.call('HGET', job, 'status'),
        frames_done = number(job, 'frames_done'),
        frames_total = number(job, 'frames_total'),
        window = window,
    }
    redis.call('XADD', EVENTS .. id, 'MAXLEN', '~', EVENTS_KEPT, '*', 'kind', kind, 'data', cjson.encode(data))
    redis.call('EXPIRE', EVENTS .. id, BELT)
    redis.call('PUBLISH', CHANGED, id .. ' ' .. data.status)
end

-- What this step brought about, for the metrics: status and strategy of each job that reached one.
local reached = {}

local function reach(id, status)
    reached[#reached + 1] = status
    reached[#reached + 1] = redis.call('HGET', JOB .. id, 'strategy')
    changed(id, 'status')
end

local function final(status)
    return status ~= 'queued' and status ~= 'running'
end

-- Takes an unfinished job out of every list of unfinished jobs.
local function leave(id)
    redis.call('ZREM', ACTIVE, id)
    redis.call('ZREM', QUEUED, id)
    redis.call('ZREM', DEADLINES, id)
    redis.call('SREM', HELD .. redis.call('HGET', JOB .. id, 'tenant'), id)
    redis.call('DEL', FLIGHT .. id)
end

-- Ends a job; false if it had ended already, or is gone.
local function finish(id, status, problem)
    local job = JOB .. id
    local was = redis.call('HGET', job, 'status')
    if not was or final(was) then
        return false
    end
    leave(id)
    local expires = now + number(job, 'result_ttl')
    redis.call('HSET', job, 'status', status, 'finished_at', stamp(now), 'expires_at', stamp(expires))
    if problem ~= '' then
        redis.call('HSET', job, 'error', problem)
    end
    redis.call('ZADD', EXPIRY, expires, id)
    redis.call('HINCRBY', COUNTS, status, 1)
    reach(id, status)
    redis.call('PUBLISH', STOPPED, id)
    return true
end

-- Marks windows of a job as sent, up to its bound, and returns their numbers.
local function send_more(id, at_least)
    local job = JOB .. id
    local threads = 0
    for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS, now - 15, '+inf')) do
        threads = threads + number(THREADS, worker)
    end
    local bound = math.max(at_least, 2 * threads)
    local first = number(job, 'next_window')
    local free = bound - redis.call('ZCARD', FLIGHT .. id)
    local last = math.min(first + free, number(job, 'windows_total')) - 1
    local sent = {}
    for window = first, last do
        redis.call('ZADD', FLIGHT .. id, now, window)
        sent[#sent + 1] = window
    end
    if #sent > 0 then
        redis.call('HSET', job, 'next_window', last + 1)
        redis.call('EXPIRE', FLIGHT .. id, BELT)
    end
    return sent
end

-- Forgets an upload that no job needs; its files are garbage from now on.
local function drop_clip(clip)
    if redis.call('SCARD', CLIP_JOBS .. clip) > 0 then
        return false
    end
    redis.call('DEL', CLIP .. clip)
    redis.call('ZREM', CLIPS, clip)
    redis.call('ZADD', GARBAGE, now, 'uploads/' .. clip .. '/')
    return true
end
