#!lua name=fanline_trends

-- Who used a subject, a hashtag or a post; readmodels/trend_uses.py documents the layout.
-- KEYS: the uses by posts and the accounts, both of a block and without its number; accounts by their newest use;
-- favourites. A block is `length` ms long; those from `first` to `last` are kept.

-- Follows every post in the order of bytes.
local AFTER = '\255\255\255\255\255\255\255\255\255'

local function at(key, block)
  return key .. ':' .. block
end

-- The ms in a post's id: all but its last 16 bits.
local function made(id)
  local high, low = struct.unpack('>I4I2', id)
  return high * 65536 + low
end

-- When an account used the subject last in a block; nothing if it did not.
local function newest_in(keys, account, liked, block, length)
  local range = {'[' .. account .. AFTER, '[' .. account, 'LIMIT', 0, 1}
  local use = redis.call('ZREVRANGEBYLEX', at(keys[1], block), unpack(range))[1]
  local newest = use and made(string.sub(use, 17))
  if liked and math.floor(liked / length) == block and not (newest and newest > liked) then newest = liked end
  return newest
end

-- Derives what is known of an account that used the subject at some ms, and does not any more.
local function settle(keys, account, ms, length, first)
  local liked, block = tonumber(redis.call('ZSCORE', keys[4], account)), math.floor(ms / length)
  local newest = newest_in(keys, account, liked, block, length)
  if not newest then redis.call('SREM', at(keys[2], block), account) end
  local known = tonumber(redis.call('ZSCORE', keys[3], account))
  if known and known > ms then return end
  while not newest and block > first do
    block = block - 1
    newest = newest_in(keys, account, liked, block, length)
  end
  if newest then redis.call('ZADD', keys[3], newest, account) else redis.call('ZREM', keys[3], account) end
end

-- ARGV: length, first, last, seconds after which a key that nobody writes expires, then for each use its account, the
-- post that it was made by (empty: a favourite), and its ms (empty: it was taken back).
redis.register_function('trend_count', function(keys, args)
  local length, first, seconds = tonumber(args[1]), tonumber(args[2]), args[4]
  local written = {}
  for index = 5, #args, 3 do
    local account, through, ms = args[index], args[index + 1], tonumber(args[index + 2])
    local gone
    if through == '' then
      if not ms then
        gone = tonumber(redis.call('ZSCORE', keys[4], account))
        redis.call('ZREM', keys[4], account)
      elseif redis.call('ZADD', keys[4], 'NX', ms, account) == 0 then
        gone = tonumber(redis.call('ZSCORE', keys[4], account))
        redis.call('ZADD', keys[4], ms, account)
      end
      written[keys[4]] = true
    else
      local made_ms = made(through)
      local uses = at(keys[1], math.floor(made_ms / length))
      if ms then
        redis.call('ZADD', uses, 0, account .. through)
      elseif redis.call('ZREM', uses, account .. through) == 1 then
        gone = made_ms
      end
      written[uses] = true
    end
    if ms then
      local accounts = at(keys[2], math.floor(ms / length))
      redis.call('SADD', accounts, account)
      redis.call('ZADD', keys[3], 'GT', ms, account)
      written[accounts] = true
    end
    if gone and gone ~= ms then settle(keys, account, gone, length, first) end
  end
  local over = string.format('(%.0f', first * length)
  redis.call('ZREMRANGEBYSCORE', keys[3], '-inf', over)
  redis.call('EXPIRE', keys[3], seconds)
  if written[keys[4]] then redis.call('ZREMRANGEBYSCORE', keys[4], '-inf', over) end
  for key in pairs(written) do
    redis.call('EXPIRE', key, seconds)
  end
end)

-- ARGV: first, last. Forgets the subject.
redis.register_function('trend_forget', function(keys, args)
  for block = tonumber(args[1]), tonumber(args[2]) do
    redis.call('UNLINK', at(keys[1], block), at(keys[2], block))
  end
  redis.call('UNLINK', keys[3], keys[4])
end)

-- How many accounts used a subject since a moment, and some of them. KEYS[1]: accounts by their newest use.
-- ARGV: ms, how many to return: all, the newest first, or of more than so many every n-th.
redis.register_function{
  function_name = 'trend_people',
  callback = function(keys, args)
    local most = tonumber(args[2])
    local count = redis.call('ZCOUNT', keys[1], args[1], '+inf')
    if count <= most then return {count, redis.call('ZREVRANGEBYSCORE', keys[1], '+inf', args[1])} end
    local some = {}
    for number = 0, most - 1 do
      local place = math.floor(number * count / most)
      some[number + 1] = redis.call('ZREVRANGE', keys[1], place, place)[1]
    end
    return {count, some}
  end,
  flags = {'no-writes'},
}
