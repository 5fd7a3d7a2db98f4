--[[ read: the values of many keys.

  KEYS[i]  value     JSON text, or absent

  Returns  {bytes | nil | 0, …} in the order of KEYS
             bytes  the value
             nil    the key is absent
             0      the key holds something other than a string
  Cost     O(#KEYS), no writes
]]
local values = redis.call('MGET', unpack(KEYS))
for i, value in ipairs(values) do
  -- MGET answers nil for a list or a hash as well; those must not look absent.
  if not value and redis.call('TYPE', KEYS[i]).ok ~= 'none' then
    values[i] = 0
  end
end
return values
