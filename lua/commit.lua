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

  Returns  {outcomes, detail…}
             outcomes  one letter for each change: c committed, n not committed because
                       the guard key holds something else, t nothing done because one of
                       the keys holds something other than a string
             detail    for each n: the bytes of the guard key, or nil where it is absent;
                       for each t: the key; left out when the call had been made before
                       and only its record is answered
  Errors   LOKVS_STALE  a later call of this writer has been made; nothing is done
           OOM, READONLY, NOREPLICAS, MISCONF, NOPERM …  the server's own; nothing is done
  Cost     O(#KEYS); no change may name a key that another change of the call names
]]
local number, record_ttl_ms, ttl_ms, layout = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- The server's own words, the code first: Redis 6.2 puts the line of the script before them.
local function words_of(reply)
  return (string.gsub(string.gsub(reply.err, '^@user_script: %d+: ', ''), '^%-', ''))
end

local record = redis.call('GET', KEYS[1])
if record then
  local space = string.find(record, ' ', 1, true)
  local last = string.sub(record, 1, space - 1)
  if last == number then
    -- A write: what waits for replicas after this answer waits for a server that still takes
    -- writes, and for an offset that is not before the first answer's.
    local refreshed = redis.pcall('PEXPIRE', KEYS[1], record_ttl_ms)
    if type(refreshed) == 'table' then -- this user may lack that right, and has the other one
      refreshed = redis.pcall('SET', KEYS[1], record, 'PX', record_ttl_ms)
      if refreshed.err then return redis.error_reply(words_of(refreshed)) end
    end
    return { string.sub(record, space + 1) }
  elseif tonumber(last) > tonumber(number) then
    return redis.error_reply('LOKVS_STALE call ' .. number .. ' comes after call ' .. last)
  end
end

local byte, call = string.byte, redis.call
local ANY, VALUE, REPEAT, REMOVE, REMOVE_GUARD, STOP = 97, 118, 114, 120, 88, 46 -- a v r x X .
local NEW_KEY = 97 -- puts in small letters name a key of their own

local function foreign(key)
  local kind = call('TYPE', key).ok
  return kind ~= 'none' and kind ~= 'string'
end

-- Everything is looked at first, and nothing written: an error undoes no write before it.
-- All guards in one MGET: it costs a third of as many GETs, and a list or hash raises no error.
local guards, length, at, key_at = {}, #layout, 1, 2
while at < length do
  guards[#guards + 1] = KEYS[key_at]
  key_at, at = key_at + 1, at + 1
  local put = byte(layout, at)
  while put ~= STOP do
    if put >= NEW_KEY then key_at = key_at + 1 end
    at = at + 1
    put = byte(layout, at)
  end
  at = at + 1
end
local found = call('MGET', unpack(guards))

local outcomes, details, sets, removals = {}, {}, {}, {}
local set_count, arg_at, detail_count = 0, 5, 0
at, key_at = 1, 2
for i = 1, #guards do
  local guard, current, kind = guards[i], found[i], byte(layout, at)
  key_at, at = key_at + 1, at + 1

  local outcome, detail = 'c', current
  if kind == VALUE then
    if current ~= ARGV[arg_at] then outcome = 'n' end
    arg_at = arg_at + 1
  elseif kind ~= ANY and current then
    outcome = 'n'
  end
  -- Only where nothing was found can something other than a string stand.
  if not current and foreign(guard) then outcome, detail = 't', guard end

  local first_set, first_removal, data = set_count, #removals, nil
  local put = byte(layout, at)
  while put ~= STOP do
    local key = guard
    if put >= NEW_KEY then
      key, key_at = KEYS[key_at], key_at + 1
      if outcome == 'c' and foreign(key) then outcome, detail = 't', key end
    end
    if put == REMOVE or put == REMOVE_GUARD then
      removals[#removals + 1] = key
    else
      if put ~= REPEAT then
        data, arg_at = ARGV[arg_at], arg_at + 1
      end
      sets[set_count + 1], sets[set_count + 2] = key, data
      set_count = set_count + 2
    end
    at = at + 1
    put = byte(layout, at)
  end
  at = at + 1

  if outcome ~= 'c' then
    set_count = first_set -- what stands beyond is overwritten or left unread
    for j = #removals, first_removal + 1, -1 do removals[j] = nil end
    detail_count = detail_count + 1
    details[detail_count] = detail
  end
  outcomes[i] = outcome
end

-- Then it is all written, or nothing. What keeps a server from writing shows at the first write;
-- it comes back as it is, since an error of redis.call loses its code on Redis 6.2. What this
-- user may not do shows at the first use of a command: each is tried before another has changed
-- a value.
local answer = table.concat(outcomes)
local entry, full, again = number .. ' ' .. answer, false, false
local tried = redis.pcall('SET', KEYS[1], entry, 'PX', record_ttl_ms)
if tried.err then
  full = set_count == 0 and #removals > 0 and string.find(words_of(tried), '^OOM')
  if not full then return redis.error_reply(words_of(tried)) end
end
if #removals > 0 then
  again = full
  if ttl_ms == '0' and set_count > 0 then -- on the record, as a removal cannot be taken back
    tried, again = redis.pcall('MSET', KEYS[1], entry), true
  end
  if full or not tried.err then
    tried = redis.pcall('UNLINK', unpack(removals, 1, math.min(4000, #removals)))
  end
end
if set_count > 0 and not (type(tried) == 'table' and tried.err) then
  if ttl_ms == '0' then
    tried = redis.pcall('MSET', unpack(sets, 1, math.min(4000, set_count)))
  else
    tried = redis.pcall('SET', sets[1], sets[2], 'PX', ttl_ms)
  end
end
if type(tried) == 'table' and tried.err then
  -- The record says again what it said (0: of no call): this one, sent once more, must not
  -- count as made.
  if not full then call('SET', KEYS[1], record or '0 ', 'PX', record_ttl_ms) end
  return redis.error_reply(words_of(tried))
end
if ttl_ms == '0' then
  for i = 4001, set_count, 4000 do -- unpack takes some 8,000
    call('MSET', unpack(sets, i, math.min(i + 3999, set_count)))
  end
else
  for i = 3, set_count, 2 do
    call('SET', sets[i], sets[i + 1], 'PX', ttl_ms)
  end
end
for i = 4001, #removals, 4000 do
  call('UNLINK', unpack(removals, i, math.min(i + 3999, #removals)))
end
-- Out of memory, and all that was asked for frees some: after a removal the server, which never
-- stops a script half way, takes the record as well. Or MSET took its expiry from it.
if again then call('SET', KEYS[1], entry, 'PX', record_ttl_ms) end
return { answer, unpack(details, 1, detail_count) }
