-- What a good afternoon with nginx and Lua gives: decode, write canonically, HMAC, Redis GET, replay or proxy, keep.
--
-- It reads a question with the same field rules as the policies of this repository, and shares among those of one
-- subtenant. It knows no flights, no windows but a TTL, no outcomes, no seal, no metrics and no log.

local cjson = require "cjson.safe"
local client = require "nginx.redis"
local ffi = require "ffi"

ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *evp, const void *key, int key_len, const unsigned char *d, size_t n,
                    unsigned char *md, unsigned int *md_len);
]]

local WINDOW_S = 86400
local KEY = string.rep("k", 32)
local IGNORED = { controlNumber = true, submitterTransactionIdentifier = true }
local FOLDED = {
  firstName = true, lastName = true, middleName = true, organizationName = true, suffix = true,
  tradingPartnerName = true,
}
local SETS = { serviceTypeCodes = true }

local M = { redis = "" }
local digest = ffi.new("unsigned char[32]")
local null, find, gsub, lower, format = cjson.null, string.find, string.gsub, string.lower, string.format
local concat, sort = table.concat, table.sort

local function hmac(text)
  ffi.C.HMAC(ffi.C.EVP_sha256(), KEY, #KEY, text, #text, digest, nil)
  return ffi.string(digest, 32)
end

local function meant(value, name)
  local kind = type(value)
  if kind == "string" then
    if find(value, "%s") then
      value = gsub(gsub(gsub(value, "^%s+", ""), "%s+$", ""), "%s+", " ")
    end
    if value == "" then return nil end
    return format("%q", FOLDED[name] and lower(value) or value)
  elseif kind ~= "table" then
    if value == null then return nil end
    return tostring(value)
  elseif value[1] ~= nil then
    local found = {}
    for i = 1, #value do found[i] = meant(value[i], name) or "null" end
    if SETS[name] then sort(found) end
    return "[" .. concat(found, ",") .. "]"
  end
  local keys, found = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  sort(keys)
  for i = 1, #keys do
    local key = keys[i]
    local text = not IGNORED[key] and meant(value[key], key)
    if text then found[#found + 1] = format("%q:", key) .. text end
  end
  return found[1] and "{" .. concat(found, ",") .. "}" or nil
end

local function connected()
  local redis = client:new()
  redis:set_timeout(250)
  return redis:connect(M.redis) and redis
end

-- access_by_lua: answer from Redis, or let the request pass.
function M.replay()
  ngx.req.read_body()
  local body = ngx.req.get_body_data()
  local question = body and cjson.decode(body)
  if type(question) ~= "table" then return end
  local subtenant = ngx.var.http_x_optum_subtenant_id or ""
  local key = "lua:" .. hmac(ngx.var.request_uri .. "\0" .. subtenant .. "\0" .. (meant(question) or ""))
  ngx.ctx.key = key
  local redis = connected()
  if not redis then return end
  local found = redis:get(key)
  redis:set_keepalive(60000, 256)
  if found and found ~= ngx.null then
    ngx.ctx.key = nil
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #found
    ngx.header["Cache-Status"] = "nginx; hit"
    ngx.print(found)
    return ngx.exit(200)
  end
end

-- body_filter_by_lua: collect what passes.
function M.collect()
  local ctx = ngx.ctx
  if ctx.key and ngx.status == 200 then
    ctx.parts = ctx.parts or {}
    ctx.parts[#ctx.parts + 1] = ngx.arg[1]
    ctx.is_whole = ctx.is_whole or ngx.arg[2]
  end
end

local function keep(_, key, body)
  local redis = connected()
  if redis then
    redis:set(key, body, "EX", WINDOW_S)
    redis:set_keepalive(60000, 256)
  end
end

-- log_by_lua: keep it; Redis cannot be asked in this phase, so a timer asks.
function M.keep()
  local ctx = ngx.ctx
  if ctx.is_whole then ngx.timer.at(0, keep, ctx.key, concat(ctx.parts)) end
end

return M
