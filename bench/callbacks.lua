-- What wrk sends: callbacks of 1.2 KB about TASKS tasks; and the lists of what became of them.
--   wrk ... -s callbacks.lua URL -- PATH TASKS SEED FILE
-- Each thread writes to FILE.<its number> the ids of the tasks whose callback was answered 200, one a line and as
-- often as it was; and to FILE.<its number>.spooled those that were answered 202. A 202 does not say which
-- callback it is for: it is the thread's last one, so that this list is right with one connection a thread alone.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("number", #threads)
end

function init(args)
  local path, seed, file = args[1], tonumber(args[3]), args[4]
  tasks = tonumber(args[2])
  math.randomseed(seed * 1000 + number)
  acknowledged, spooled = list(file .. "." .. number), list(file .. "." .. number .. ".spooled")
  acknowledgements, spoolings, refusals = 0, 0, 0
  id_format = string.rep("0", 8) .. "-feed-4bee-8bad-%012d"
  before = '{"success": true, "task_id": "'
  after = '", "trace_id": "' .. string.rep("7", 36) .. '", "image_id": "1223981736431251510", "progress": 100,'
    .. ' "image_width": 2048, "image_height": 2048,'
    .. ' "image_url": "https://platform.cdn.acedata.cloud/midjourney/' .. string.rep("c", 64) .. '.png",'
    .. ' "raw_image_url": "https://cdn.discordapp.com/attachments/' .. string.rep("d", 320) .. '",'
    .. ' "actions": ["upscale1", "upscale2", "upscale3", "upscale4", "reroll", "variation1", "variation2",'
    .. ' "variation3", "variation4"], "prompt": "' .. string.rep("a lighthouse at dusk ", 18) .. '"}'
  local length = #before + #string.format(id_format, 0) + #after
  head = "POST " .. path .. " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port
    .. "\r\nUser-Agent: python-requests/2.32.3\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: "
    .. length .. "\r\n\r\n" .. before
end

function list(name)
  local file = io.open(name, "w")
  file:setvbuf("full", 65536)
  return file
end

function request()
  last = string.format(id_format, math.random(0, tasks - 1))
  return head .. last .. after
end

function response(status, headers, body)
  if status == 200 then
    acknowledgements = acknowledgements + 1
    acknowledged:write(string.match(body, '"task_id": ?"([^"]+)"'), "\n")
  elseif status == 202 then
    spoolings = spoolings + 1
    spooled:write(last, "\n")
  else
    refusals = refusals + 1
  end
end

function done(summary, latency, requests)
  local counts = {acknowledgements = 0, spoolings = 0, refusals = 0}
  for _, thread in ipairs(threads) do
    for name, count in pairs(counts) do
      counts[name] = count + thread:get(name)
    end
  end
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"seconds": %f, "p50": %f, "p99": %f, "acknowledged": %d, "spooled": %d, "refused": %d, "broken": %d}\n',
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    counts.acknowledgements, counts.spoolings, counts.refusals,
    errors.connect + errors.read + errors.write + errors.timeout))
end
