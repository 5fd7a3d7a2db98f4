--[[ commit: make many changes, each atomically, and the call at most once.

  KEYS[1]    record  what this writer's last call did: '[<number>,"<outcomes>"]', which is JSON
  KEYS[2…]   for each change: the guard key, then the keys put, but the guard not twice;
             first those that are read, and after them, in the same order, the others

  ARGV[1]    number  of this call; the writer counts up after each definite answer
  ARGV[2]    record_ttl_ms  longer than the writer may retry this call
  ARGV[3]    ttl_ms  of the values that are put; 0: they do not expire
  ARGV[4]    read_count  how many KEYS after the first are read
  ARGV[5]    layout  one letter for the guard, then one for each put, then '.'
               guard  a  put unconditionally
                      n  put if the guard key is absent
                      v  put if it holds exactly the bytes that follow in ARGV
                      A  like a, of a key that is not read
               put    s  set the key to the bytes that follow in ARGV
                      r  set it to the same bytes as the put before
                      S R  the same of a key that is not read
                      X  remove the key, which is not read
                      g  set the guard key to the bytes that follow in ARGV
                      d  remove it
  ARGV[6…]   the bytes that the layout asks for, in its order

  Returns  {outcomes, detail…}
             outcomes  one letter for each change: c committed, n not committed because
                       the guard key holds something else, t nothing done because one of
                       the keys holds something other than a string
             detail    for each n: the bytes of the guard key, or nil where it is absent;
                       for each t: the key; left out when the call had been made before
                       and only its record is answered
  Errors   LOKVS_STALE  a later call of this writer has been made; nothing is done
           OOM, READONLY, NOREPLICAS, MISCONF, NOPERM …  the server's own; nothing is done
  Cost     O(#KEYS), and the bytes of what is read; no change may name a key that another
           change of the call names
]]
local number, record_ttl_ms, ttl_ms, read_count, layout = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local byte, call, min = string.byte, redis.call, math.min
local ABSENT, VALUE, ANY_UNREAD, STOP = 110, 118, 65, 46 -- n v A .
local REPEAT, REPEAT_UNREAD, REMOVE, SET_GUARD, REMOVE_GUARD = 114, 82, 88, 103, 100 -- r R X g d
local UNREAD = 97 -- capital letters stand for keys that are not read
local PART = 4000 -- of a long list: unpack takes some 8,000

-- The server's error with its code first: Redis 6.2 puts the line of the script before it.
local function words_of(reply)
  return (string.gsub(string.gsub(reply.err, '^@user_script: %d+: ', ''), '^%-', ''))
end

local function foreign(key)
  local kind = call('TYPE', key).ok
  return kind ~= 'none' and kind ~= 'string'
end

-- Read everything before writing anything: an error does not undo earlier writes.
-- Use one MGET: for small values it is cheaper than asking for the key's type, and it raises no
-- error for a list or hash. Only keys without a value can be of another type.
local read_end = 1 + read_count
local found = call('MGET', unpack(KEYS, 1, min(PART, read_end)))
for i = PART + 1, read_end, PART do
  for j, value in ipairs(call('MGET', unpack(KEYS, i, min(i + PART - 1, read_end)))) do
    found[i + j - 1] = value
  end
end

local record = found[1]
if record then
  local comma = string.find(record, ',', 1, true)
  local last = string.sub(record, 2, comma - 1)
  if last == number then
    -- A write: what waits for replicas after this answer waits for a server that still takes
    -- writes, and for an offset that is not before the first answer's.
    local refreshed = redis.pcall('PEXPIRE', KEYS[1], record_ttl_ms)
    if type(refreshed) == 'table' then -- this user may lack that right, and has the other one
      refreshed = redis.pcall('SET', KEYS[1], record, 'PX', record_ttl_ms)
      if refreshed.err then return redis.error_reply(words_of(refreshed)) end
    end
    return { string.sub(record, comma + 2, -3) }
  elseif tonumber(last) > tonumber(number) then
    return redis.error_reply('LOKVS_STALE call ' .. number .. ' comes after call ' .. last)
  end
end

local others, details, sets, removals = nil, {}, {}, {}
local count, detail_count, set_count, removal_count = 0, 0, 0, 0
local at, length, key_at, unread_at, arg_at = 1, #layout, 2, read_end + 1, 6
while at < length do
  count = count + 1
  local kind, put, then_put, last_put = byte(layout, at, at + 3) -- most have no more letters
  local outcome, guard, current, detail = 'c', nil, nil, nil
  if kind == ANY_UNREAD then
    guard, unread_at = KEYS[unread_at], unread_at + 1
    if foreign(guard) then outcome, detail = 't', guard end
  else
    guard, current, key_at = KEYS[key_at], found[key_at], key_at + 1
    if kind == VALUE then
      if current ~= ARGV[arg_at] then outcome, detail = 'n', current end
      arg_at = arg_at + 1
    elseif kind == ABSENT and current then
      outcome, detail = 'n', current
    end
    if not current and foreign(guard) then outcome, detail = 't', guard end
  end

  local first_set, first_removal, data = set_count, removal_count, nil
  at = at + 1
  while put ~= STOP do
    local key = guard
    if put < UNREAD then
      key, unread_at = KEYS[unread_at], unread_at + 1
      if outcome == 'c' and foreign(key) then outcome, detail = 't', key end
    elseif put ~= SET_GUARD and put ~= REMOVE_GUARD then
      key = KEYS[key_at]
      if not found[key_at] and outcome == 'c' and foreign(key) then outcome, detail = 't', key end
      key_at = key_at + 1
    end
    if put == REMOVE or put == REMOVE_GUARD then
      removal_count = removal_count + 1
      removals[removal_count] = key
    else
      if put ~= REPEAT and put ~= REPEAT_UNREAD then
        data, arg_at = ARGV[arg_at], arg_at + 1
      end
      sets[set_count + 1], sets[set_count + 2] = key, data
      set_count = set_count + 2
    end
    at = at + 1
    if then_put then
      put, then_put, last_put = then_put, last_put, nil
    else
      put, then_put, last_put = byte(layout, at, at + 2)
    end
  end
  at = at + 1

  if outcome ~= 'c' then
    set_count, removal_count = first_set, first_removal -- what is beyond is overwritten, or unread
    detail_count = detail_count + 1
    details[detail_count] = detail
    others = others or {}
    others[count] = outcome
  end
end

local answer = string.rep('c', count)
if others then
  local outcomes = {}
  for i = 1, count do outcomes[i] = others[i] or 'c' end
  answer = table.concat(outcomes)
end

-- Then write everything or nothing. If the server cannot write, the first write fails; its error
-- is returned as it is, because an error of redis.call loses its code on Redis 6.2. A missing
-- permission shows at the first use of a command: each command is tried before another one has
-- changed a value.
local entry, full, again = '[' .. number .. ',"' .. answer .. '"]', false, false
local tried = redis.pcall('SET', KEYS[1], entry, 'PX', record_ttl_ms)
if tried.err then
  full = set_count == 0 and removal_count > 0 and string.find(words_of(tried), '^OOM')
  if not full then return redis.error_reply(words_of(tried)) end
end
if removal_count > 0 then
  again = full
  if ttl_ms == '0' and set_count > 0 then -- on the record, as a removal cannot be taken back
    tried, again = redis.pcall('MSET', KEYS[1], entry), true
  end
  if full or not tried.err then
    tried = redis.pcall('UNLINK', unpack(removals, 1, min(PART, removal_count)))
  end
end
if set_count > 0 and not (type(tried) == 'table' and tried.err) then
  if ttl_ms == '0' then
    tried = redis.pcall('MSET', unpack(sets, 1, min(PART, set_count)))
  else
    tried = redis.pcall('SET', sets[1], sets[2], 'PX', ttl_ms)
  end
end
if type(tried) == 'table' and tried.err then
  -- The record says again what it said (0: of no call): this one, sent once more, must not
  -- count as made.
  if not full then call('SET', KEYS[1], record or '[0,""]', 'PX', record_ttl_ms) end
  return redis.error_reply(words_of(tried))
end
if ttl_ms == '0' then
  for i = PART + 1, set_count, PART do
    call('MSET', unpack(sets, i, min(i + PART - 1, set_count)))
  end
else
  for i = 3, set_count, 2 do
    call('SET', sets[i], sets[i + 1], 'PX', ttl_ms)
  end
end
for i = PART + 1, removal_count, PART do
  call('UNLINK', unpack(removals, i, min(i + PART - 1, removal_count)))
end
-- Out of memory, and all that was asked for frees some: after a removal the server, which never
-- stops a script half way, takes the record as well. Or MSET took its expiry from it.
if again then call('SET', KEYS[1], entry, 'PX', record_ttl_ms) end
return { answer, unpack(details, 1, detail_count) }
