-- Forgets the uploads named, or without names those that are due; not one that a job still needs.
local due = ARGV
if #due == 0 then
    due = redis.call('ZRANGEBYSCORE', CLIPS, '-inf', now, 'LIMIT', 0, 1000)
end
local dropped = {}
for _, clip in ipairs(due) do
    if drop_clip(clip) then
        dropped[#dropped + 1] = clip
    end
end
return dropped
