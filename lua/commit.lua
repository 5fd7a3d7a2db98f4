--[[ commit: many changes, each whole or not at all, and the call at most once.

  KEYS[1]    record  what this writer's last call did: '<number> <outcomes>'
  KEYS[2…]   for each change: the guard key, then the keys put, but the guard not twice

  ARGV[1]    number  of this call; the writer counts up after each definite answer
  ARGV[2]    record_ttl_ms  longer than the writer may go on sending this call again
  ARGV[3]    ttl_ms  of the values that are put; 0: they do not expire
  ARGV[4]    layout  one letter for the guard, then one for each put, then '.'
               guard  a  put whatever stands there
                      n  put if the guard key is absent
                      v  put if it holds exactly the bytes that follow in ARGV
               put    s  set the key to the bytes that follow in ARGV
                      r  set it to the same bytes as the put before
                      x  remove it
                      S X  the same for the guard key itself
  ARGV[5…]   the bytes that the layout asks for, in its order

  Returns  {outcomes, current…}
             outcomes  one letter for each change: c committed, n not committed because
                       the guard key holds something else, t nothing done because one of
                       the keys holds something other than a string
             current   for each n: the bytes of the guard key, or nil where it is absent;
                       left out when the call had been made before and only its record
                       is answered
  Errors   LOKVS_STALE  a later call of this writer has been made; nothing is done
  Cost     O(#KEYS); no change may name a key that another change of the call names
]]
local number, record_ttl_ms, ttl_ms, layout = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local record = redis.call('GET', KEYS[1])
if record then
  local space = string.find(record, ' ', 1, true)
  local last = string.sub(record, 1, space - 1)
  if last == number then
    return { string.sub(record, space + 1) }
  elseif tonumber(last) > tonumber(number) then
    return redis.error_reply('LOKVS_STALE call ' .. number .. ' comes after call ' .. last)
  end
end

local function foreign(key)
  local kind = redis.call('TYPE', key).ok
  return kind ~= 'none' and kind ~= 'string'
end

-- First look at everything and write nothing: an error cannot undo what was written.
local outcomes, currents, sets, removals = {}, {}, {}, {}
local key_at, arg_at, at, length = 2, 5, 1, #layout
while at <= length do
  local guard, kind = KEYS[key_at], string.sub(layout, at, at)
  key_at, at = key_at + 1, at + 1

  local outcome = 'c'
  local unseen = true -- whether no read has shown yet that the guard key is a string
  if kind ~= 'a' then
    local expected = false
    if kind == 'v' then
      expected, arg_at = ARGV[arg_at], arg_at + 1
    end
    local current = redis.call('MGET', guard)[1]
    unseen = not current
    if current ~= expected then
      outcome = 'n'
      currents[#currents + 1] = current
    end
  end
  if unseen and foreign(guard) then
    if outcome == 'n' then
      currents[#currents] = nil
    end
    outcome = 't'
  end

  local first_set, first_removal, data = #sets, #removals, nil
  local put = string.sub(layout, at, at)
  while put ~= '.' do
    local key = guard
    if put == 's' or put == 'r' or put == 'x' then
      key, key_at = KEYS[key_at], key_at + 1
      if unseen and outcome == 'c' and foreign(key) then
        outcome = 't'
      end
    end
    if put == 'x' or put == 'X' then
      removals[#removals + 1] = key
    else
      if put ~= 'r' then
        data, arg_at = ARGV[arg_at], arg_at + 1
      end
      sets[#sets + 1] = key
      sets[#sets + 1] = data
    end
    at = at + 1
    put = string.sub(layout, at, at)
  end
  at = at + 1

  if outcome ~= 'c' then
    for i = #sets, first_set + 1, -1 do sets[i] = nil end
    for i = #removals, first_removal + 1, -1 do removals[i] = nil end
  end
  outcomes[#outcomes + 1] = outcome
end

-- Then write it all.
local answer = table.concat(outcomes)
redis.call('SET', KEYS[1], number .. ' ' .. answer, 'PX', record_ttl_ms)
if ttl_ms == '0' then
  for i = 1, #sets, 4000 do -- unpack takes some 8,000
    redis.call('MSET', unpack(sets, i, math.min(i + 3999, #sets)))
  end
else
  for i = 1, #sets, 2 do
    redis.call('SET', sets[i], sets[i + 1], 'PX', ttl_ms)
  end
end
for i = 1, #removals, 4000 do
  redis.call('UNLINK', unpack(removals, i, math.min(i + 3999, #removals)))
end
return { answer, unpack(currents) }
