#!/usr/bin/env python3
"""Writes a second that the whole proxy acknowledges while every region is down, over HTTP, with fsync on.

    EVENKEEL_BIN=target/quick/evenkeel benches/spool_http.py [--seconds 10] [--connections 512] [--folder DIR]

Needs wrk. Prints the disk's fdatasync rate beside it: `cargo bench --bench spool` measures the same below HTTP.
"""
import argparse, os, subprocess, sys, tempfile, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from spool_kill import Proxy, free

LUA = """
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
local n, body = 0, string.rep("x", 1024)
function request()
  n = n + 1
  local key = id .. "-" .. n
  return wrk.format("POST", "/posts/" .. key, {["Idempotency-Key"] = key, ["X-Lane"] = key}, body)
end
kept, other = 0, 0
function response(status) if status == 202 then kept = kept + 1 else other = other + 1 end end
local all = {}
local before = setup
function setup(thread) before(thread); table.insert(all, thread) end
function done(summary)
  local k, o = 0, 0
  for _, t in ipairs(all) do k = k + t:get("kept"); o = o + t:get("other") end
  io.write(string.format("RESULT %d %d %f\\n", k, o, summary.duration / 1e6))
end
"""


class Nobody:
    port = free()


def fsyncs(folder, size, span=2.0):
    fd, data, n, began = os.open(os.path.join(folder, "fsync"), os.O_CREAT | os.O_WRONLY), b"x" * size, 0, time.time()
    while time.time() - began < span:
        os.write(fd, data)
        os.fdatasync(fd)
        n += 1
    os.close(fd)
    return n / (time.time() - began)


p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
p.add_argument("--seconds", type=int, default=10)
p.add_argument("--connections", type=int, default=512)
p.add_argument("--folder", default=None)
a = p.parse_args()
folder = tempfile.mkdtemp(prefix="ek-spool-http-", dir=a.folder)
small, batch = fsyncs(folder, 4096), fsyncs(folder, a.connections * 1024)
proxy = Proxy(folder, Nobody)
proxy.start()
time.sleep(1)
script = os.path.join(folder, "writes.lua")
with open(script, "w") as f:
    f.write(LUA)
said = subprocess.run(["wrk", "-t1", f"-c{a.connections}", f"-d{a.seconds}s", "--latency", "-s", script, f"http://127.0.0.1:{proxy.port}"],
                      capture_output=True, text=True).stdout
kept, other, took = next(line.split()[1:] for line in said.splitlines() if line.startswith("RESULT"))
proxy.process.terminate()
proxy.process.wait()
print(f"the disk: {small:.0f} fdatasync/s of 4 KiB, {batch:.0f}/s of {a.connections} KiB: {batch * a.connections:.0f} writes/s of 1 KiB at most in batches of {a.connections}")
print(f"the proxy: {int(kept) / float(took):.0f} writes/s of 1 KiB acknowledged with 202 ({kept} kept, {other} answered otherwise)")
print("\n".join(line for line in said.splitlines() if "%" in line and "Stdev" not in line))
