-- Calls a head-end over its unix socket, as Neovim's own channel: HEAD_END_SOCKET names it. Prints JSON.
local channel = vim.fn.sockconnect("pipe", vim.env.HEAD_END_SOCKET, { rpc = true })
local item = { "1.0.1.8.0.255" }
local found = {
  ping = vim.fn.rpcrequest(channel, "rpc.ping", vim.empty_dict()),
  devices = vim.fn.rpcrequest(channel, "device.list", { limit = 10 }),
  last = vim.fn.rpcrequest(channel, "read.last", { points = { "virtual-00001" }, items = item }),
}
local done, failure = pcall(vim.fn.rpcrequest, channel, "read.last", { points = { "nobody" }, items = item })
found.failure = not done and tostring(failure) or nil
io.stdout:write(vim.fn.json_encode(found) .. "\n")
