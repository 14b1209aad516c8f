#!lua name=fanline_documents

-- A version token: microseconds of this server's clock, strictly increasing. It stays below 2^53, so a Lua
-- number holds it exactly, and time moves on over a wiped server, so that old tokens never beat new ones.
-- KEYS[1]: the key of the last token.
redis.register_function('document_token', function(keys)
  local now = redis.call('TIME')
  local token = tonumber(now[1]) * 1000000 + tonumber(now[2])
  local last = tonumber(redis.call('GET', keys[1]) or '0')
  if token <= last then token = last + 1 end
  redis.call('SET', keys[1], string.format('%.0f', token))
  return token
end)

-- Writes over a document, or over its reservation, whose token is not newer. Where there is neither it writes nothing:
-- they were lost after the writer looked, and so may have been the document of somebody who looked later.
-- KEYS[1]: the document. ARGV: token (8 bytes, big-endian), body, seconds to live. Returns 1 if written.
redis.register_function('document_set', function(keys, args)
  local current = redis.call('GETRANGE', keys[1], 0, 7)
  if #current < 8 or struct.unpack('>I8', current) > struct.unpack('>I8', args[1]) then return 0 end
  redis.call('SET', keys[1], args[1] .. args[2], 'EX', args[3])
  return 1
end)
