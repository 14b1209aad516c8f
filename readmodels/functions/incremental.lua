#!lua name=fanline_incremental

-- Values that row changes are added to, each exactly once; readmodels/incremental.py documents the layout and why it
-- holds. A Lua number cannot hold 64 bits and string comparison follows the server's locale, so positions and ids are
-- compared in 32-bit parts.

local MARKED, GONE, HELD = 'M', 'G', 'H'
local MARK_SECONDS = 60
local CHANGE_BYTES = 34
local PLACE_BYTES = 3
local UNSURE = 2
local HALF_CIRCLE, CIRCLE = 2147483648, 4294967296

local function mark(key, token)
  redis.call('SET', key, MARKED .. token, 'EX', MARK_SECONDS)
end

-- Whether a list of 8-byte ids has one.
local function has(ids, id)
  local from = 1
  while true do
    local at = string.find(ids, id, from, true)
    if not at then return false end
    if (at - 1) % 8 == 0 then return true end
    from = at + 1
  end
end

-- What the database said when the value was loaded: a function that tells whether it had seen a change, where the places
-- begin, and whether partitions keep the order of commits.
local function base_of(value, at)
  local dialect = string.sub(value, at, at)
  local b1, b2, b3, b4 = struct.unpack('>I4I4I4I4', value, at + 1)
  if dialect == 'C' then
    local function seen(p1, p2, p3, p4)
      if p1 ~= b1 then return p1 < b1 end
      if p2 ~= b2 then return p2 < b2 end
      if p3 ~= b3 then return p3 < b3 end
      return p4 <= b4
    end
    return seen, at + 17, false
  end
  local stop = at + 23 + 4 * struct.unpack('>I2', value, at + 21)
  local function seen(p1, p2, p3, p4, transaction)
    -- What was written or committed behind the log's end of then was not visible, whatever its number in the circle.
    if p1 > b1 or (p1 == b1 and p2 > b2) or p3 > b1 or (p3 == b1 and p4 > b2) then return false end
    if transaction == 0 then return true end
    if (transaction - struct.unpack('>I4', value, at + 17)) % CIRCLE < HALF_CIRCLE then return false end
    for running = at + 23, stop - 4, 4 do
      if struct.unpack('>I4', value, running) == transaction then return false end
    end
    return true
  end
  return seen, stop, true
end

-- The last position that each topic's partition has applied, and the ids of the rows applied at it.
local function places_of(value, at)
  local places, order = {}, {}
  while at <= #value do
    local place = string.sub(value, at, at + PLACE_BYTES - 1)
    local stop = at + PLACE_BYTES + 17 + 8 * struct.unpack('>I2', value, at + PLACE_BYTES + 16)
    places[place] = string.sub(value, at + PLACE_BYTES, stop)
    order[#order + 1] = place
    at = stop + 1
  end
  return places, order
end

-- Counters: 4 bytes each. Of shape N the last one counts posts, and the newest post's id and day follow.
local function counters(payload, shape)
  local fields, newest_at = {}, #payload + 1
  if shape == 'N' then newest_at = newest_at - 12 end
  for at = 1, newest_at - 1, 4 do fields[#fields + 1] = struct.unpack('>I4', payload, at) end
  local newest = string.sub(payload, newest_at)
  local function effect(id, field, adds, day)
    local count = fields[field + 1] + (adds and 1 or -1)
    if count < 0 then return false end
    fields[field + 1] = count
    if shape == 'N' and field + 1 == #fields then
      local n1, n2 = struct.unpack('>I4I4', newest)
      local i1, i2 = struct.unpack('>I4I4', id)
      if adds then
        if i1 > n1 or (i1 == n1 and i2 > n2) then newest = id .. day end
      elseif i1 == n1 and i2 == n2 then
        return false
      end
    end
    return true
  end
  local function packed()
    for number, count in ipairs(fields) do fields[number] = struct.pack('>I4', count) end
    return table.concat(fields) .. newest
  end
  return effect, packed
end

-- How many of some sorted 8-byte ids are less than one, and whether it is among them.
local function find(ids, high, low)
  local first, last = 0, #ids / 8
  while first < last do
    local middle = math.floor((first + last) / 2)
    local h, l = struct.unpack('>I4I4', ids, middle * 8 + 1)
    if h < high or (h == high and l < low) then first = middle + 1 else last = middle end
  end
  if first * 8 >= #ids then return first, false end
  local h, l = struct.unpack('>I4I4', ids, first * 8 + 1)
  return first, h == high and l == low
end

-- Sets of ids: for each a horizon (8), a number (4) and as many ids above the horizon, ascending. A set that has grown
-- by a quarter past `kept` loses its lowest, and the horizon rises to the last one lost.
local function sets(payload, kept)
  local found, at = {}, 1
  while at <= #payload do
    local stop = at + 11 + 8 * struct.unpack('>I4', payload, at + 8)
    found[#found + 1] = {horizon = string.sub(payload, at, at + 7), ids = string.sub(payload, at + 12, stop)}
    at = stop + 1
  end
  local function effect(id, field, adds)
    local set = found[field + 1]
    local high, low = struct.unpack('>I4I4', id)
    local h, l = struct.unpack('>I4I4', set.horizon)
    if high < h or (high == h and low <= l) then return true end
    local ids = set.ids
    local below, there = find(ids, high, low)
    if adds and not there then
      ids = string.sub(ids, 1, below * 8) .. id .. string.sub(ids, below * 8 + 1)
      if #ids / 8 > kept + kept / 4 then
        local cut = #ids - kept * 8
        set.horizon, ids = string.sub(ids, cut - 7, cut), string.sub(ids, cut + 1)
      end
    elseif there and not adds then
      ids = string.sub(ids, 1, below * 8) .. string.sub(ids, below * 8 + 9)
    end
    set.ids = ids
    return true
  end
  local function packed()
    local parts = {}
    for _, set in ipairs(found) do parts[#parts + 1] = set.horizon .. struct.pack('>I4', #set.ids / 8) .. set.ids end
    return table.concat(parts)
  end
  return effect, packed
end

-- Adds row changes to a value, those that it has not seen.
-- KEYS[1]: the value. ARGV: shape, 1 if sparse, token, seconds to live, ids kept in a set, groups: a place, then the changes
-- of that partition in their order, each a position (16), a transaction (4), the row's id (8), a field (1), 1 to add,
-- 0 to take away or 2 if only the database knows what is left, a day (4).
-- Returns 0 where the value has to be loaded from the database: a mark with the token stands for it now.
redis.register_function('incremental_apply', function(keys, args)
  local key, shape, sparse = keys[1], args[1], args[2] == '1'
  local value = redis.call('GET', key)
  local state = value and string.sub(value, 1, 1)
  local function load_again()
    if not sparse then
      mark(key, args[3])
      return 0
    end
    if value then redis.call('DEL', key) end
    return 1
  end
  if state == GONE then return 1 end
  if state ~= HELD then return load_again() end
  if #args < 6 then return 1 end

  local size = struct.unpack('>I4', value, 2)
  local payload = string.sub(value, 6, 5 + size)
  local seen, places_at, ordered = base_of(value, 6 + size)
  local places, order = places_of(value, places_at)
  local effect, packed
  if shape == 'S' then effect, packed = sets(payload, tonumber(args[5])) else effect, packed = counters(payload, shape) end
  local changed = false
  for number = 6, #args do
    local group = args[number]
    local place = string.sub(group, 1, PLACE_BYTES)
    local last = places[place]
    local l1, l2, l3, l4, there = -1, -1, -1, -1, ''
    if last then
      l1, l2, l3, l4 = struct.unpack('>I4I4I4I4', last)
      there = string.sub(last, 19)
    end
    local applied = false
    for at = PLACE_BYTES + 1, #group, CHANGE_BYTES do
      local p1, p2, p3, p4, transaction, id, field, adds = struct.unpack('>I4I4I4I4I4c8BB', group, at)
      local later, same = false, false
      if p1 ~= l1 then later = p1 > l1
      elseif p2 ~= l2 then later = p2 > l2
      elseif p3 ~= l3 then later = p3 > l3
      elseif p4 ~= l4 then later = p4 > l4
      else same = true end
      if later or (same and not has(there, id)) then
        if not seen(p1, p2, p3, p4, transaction) then
          local day = string.sub(group, at + 30, at + 33)
          if adds == UNSURE or not effect(id, field, adds == 1, day) then return load_again() end
          if later then l1, l2, l3, l4, there = p1, p2, p3, p4, id else there = there .. id end
          applied = true
        end
      -- Without an order, a replay and a change that another row's has overtaken look alike.
      elseif not (same or ordered or seen(p1, p2, p3, p4, transaction)) then
        return load_again()
      end
    end
    if applied then
      if not last then order[#order + 1] = place end
      places[place] = struct.pack('>I4I4I4I4I2', l1, l2, l3, l4, #there / 8) .. there
      changed = true
    end
  end
  if changed then
    payload = packed()
    local parts = {HELD, struct.pack('>I4', #payload), payload, string.sub(value, 6 + size, places_at - 1)}
    for _, place in ipairs(order) do
      parts[#parts + 1] = place
      parts[#parts + 1] = places[place]
    end
    redis.call('SET', key, table.concat(parts), 'EX', args[4])
  end
  return 1
end)

-- Says that somebody is about to load a value. KEYS[1]: the value. ARGV[1]: a token.
-- Returns the token of the mark that stands there now; an empty one where there is nothing to load.
redis.register_function('incremental_begin', function(keys, args)
  local current = redis.call('GETRANGE', keys[1], 0, 8)
  local state = string.sub(current, 1, 1)
  if state == MARKED then return string.sub(current, 2) end
  -- Anything else is a value of an earlier layout.
  if state == HELD or state == GONE then return '' end
  mark(keys[1], args[1])
  return args[1]
end)

-- Writes a value that was loaded under a mark. KEYS[1]: the value. ARGV: the mark's token, value, seconds to live.
-- Returns 1 if the value, this one or another's, is there; 0 if the mark is gone or a newer one stands there.
redis.register_function('incremental_fill', function(keys, args)
  local current = redis.call('GETRANGE', keys[1], 0, 8)
  local state = string.sub(current, 1, 1)
  if state == MARKED and string.sub(current, 2) == args[1] then
    redis.call('SET', keys[1], args[2], 'EX', args[3])
    return 1
  end
  return (state == GONE or state == HELD) and 1 or 0
end)
