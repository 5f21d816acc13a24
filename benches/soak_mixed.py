#!/usr/bin/env python3
"""An hour of everything at once: nothing may leak.

    EVENKEEL_BIN=target/quick/evenkeel benches/soak_mixed.py [SECONDS=3600] [RATE=120]

Two regions of two app servers that take turns at being broken (refused, hung, failing, slow, resetting, cutting answers short), never both regions
at once. Clients over plain HTTP/1.1, TLS, and HTTP/2 over TLS (h2load, where it is installed), uploads, tunnels, clients that leave in the middle,
that read slowly, and that never finish their request; a reload of the weights every 20 s. Every ten seconds: resident memory, file
descriptors, connections. At the end the load stops and everything must go back to what it was before: no connection, no request and no permit is left.
Prints the course, and exits 1 where something leaked or a good client was hurt while the faults could be gone around.
"""
import asyncio, json, os, pathlib, random, re, shutil, socket, ssl, subprocess, sys, tempfile, time, urllib.request

SECS = int(sys.argv[1]) if len(sys.argv) > 1 else 3600
RATE = int(sys.argv[2]) if len(sys.argv) > 2 else 120
BIN = os.environ.get("EVENKEEL_BIN") or "target/quick/evenkeel"
HTTP, HTTPS, ADMIN = 18080, 18443, 19900
D = pathlib.Path(tempfile.mkdtemp(prefix="ek-soak-"))
dice = random.Random(7)
MODES = ["refuse", "hang", "fail", "slow", "reset", "cut"]


class Origin:
    def __init__(self, region, port):
        self.region, self.port, self.mode, self.server, self.open = region, port, "ok", None, set()

    async def up(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def set(self, mode):
        self.mode = mode
        if mode == "refuse" and self.server:
            self.server.close()
            self.server = None
        elif mode != "refuse" and not self.server:
            await self.up()
        if mode in ("reset", "refuse"):
            for w in list(self.open):
                w.transport.abort()

    async def serve(self, r, w):
        self.open.add(w)
        try:
            while True:
                head = await r.readuntil(b"\r\n\r\n")
                low = head.lower()
                if b"upgrade: echo" in low:
                    w.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
                    while data := await r.read(4096):
                        w.write(data)
                        await w.drain()
                    return
                if m := re.search(rb"content-length: (\d+)", low):
                    await r.readexactly(int(m[1]))
                elif b"transfer-encoding: chunked" in low:
                    while (n := int((await r.readline()).split(b";")[0], 16)) or True:
                        await r.readexactly(n + 2)
                        if n == 0:
                            break
                if self.mode == "hang":
                    while self.mode == "hang":
                        await asyncio.sleep(0.1)
                    return
                if self.mode == "reset":
                    return w.transport.abort()
                if self.mode == "slow":
                    await asyncio.sleep(0.15)
                body = b"x" * (200_000 if head.startswith(b"GET /large") else 1000)
                status = b"500 No" if self.mode == "fail" else b"200 OK"
                w.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\nx-region: %s\r\n\r\n" % (status, len(body), self.region.encode()))
                if self.mode == "cut" and dice.random() < 0.3:
                    w.write(body[: len(body) // 2])
                    await w.drain()
                    return w.transport.abort()
                w.write(body)
                await w.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            self.open.discard(w)
            w.close()


def config(east, west):
    pool = lambda a, b: f"{{endpoints: [\"127.0.0.1:{a}\", \"127.0.0.1:{b}\"]}}"
    text = f"""version: 1
edge: {{threads: 2, state_dir: state, drain_timeout: 5s}}
listeners:
  - {{address: "127.0.0.1:{HTTP}"}}
  - {{address: "127.0.0.1:{HTTPS}", tls: {{certificates: [{{cert: cert.pem, key: key.pem}}]}}}}
admin: {{address: "127.0.0.1:{ADMIN}"}}
limits: {{header_timeout: 3s, body_timeout: 5s, idle_timeout: 20s}}
regions: {{east: {{weight: {east}}}, west: {{weight: {west}}}}}
services: {{app: {{pools: {{east: {pool(18101, 18102)}, west: {pool(18201, 18202)}}}, health: {{interval: 500ms, path: /healthz}}}}}}
recovery: {{hold: 1s, step_time: 1s}}
routes:
  - {{name: large, match: {{path_prefix: /large}}, service: app, deadline: 4s}}
  - {{name: all, match: {{path_prefix: /}}, service: app, deadline: 2s, degrade: [stale: {{max_age: 60s}}]}}
"""
    (D / "next").write_text(text)
    (D / "next").rename(D / "evenkeel.yaml")


count = {}


def saw(kind, good):
    a, b = count.get(kind, (0, 0))
    count[kind] = (a + good, b + (not good))


class Client:
    """One kind of client with a few kept connections."""

    def __init__(self, kind, tls=None):
        self.kind, self.tls, self.idle = kind, tls, []

    async def dial(self):
        return await asyncio.open_connection("127.0.0.1", HTTPS if self.tls else HTTP, ssl=self.tls, server_hostname="a.test" if self.tls else None)

    async def ask(self, request, limit=4):
        kept, w = bool(self.idle), None
        try:
            r, w = self.idle.pop() if self.idle else await self.dial()
            w.write(request)
            head = await asyncio.wait_for(r.readuntil(b"\r\n\r\n"), limit)
            n = int(re.search(rb"content-length: (\d+)", head.lower())[1])
            await asyncio.wait_for(r.readexactly(n), limit)
            if b"connection: close" in head.lower() or len(self.idle) > 8:
                w.close()
            else:
                self.idle.append((r, w))
            return int(head[9:12])
        except Exception as e:
            if w:
                w.close()
            # A kept connection that was closed just then is asked again, as every client does.
            if kept and isinstance(e, (asyncio.IncompleteReadError, ConnectionError)):
                return await self.ask(request, limit)
            return 0


GET = b"GET /%d HTTP/1.1\r\nHost: a.test\r\n\r\n"


async def steady(client, rate, make, until):
    tasks = set()
    while time.monotonic() < until:
        async def one():
            saw(client.kind, 200 <= await client.ask(make()) < 500)
        t = asyncio.create_task(one())
        tasks.add(t)
        t.add_done_callback(tasks.discard)
        await asyncio.sleep(dice.expovariate(rate))
    await asyncio.gather(*tasks)
    for _, w in client.idle:
        w.close()


async def leaver(until):
    """Leaves in the middle of a large answer, reads it slowly, or never finishes its head."""
    while time.monotonic() < until:
        try:
            r, w = await asyncio.open_connection("127.0.0.1", HTTP)
            what = dice.randrange(3)
            w.write(b"GET /large HTTP/1.1\r\nHost: a.test\r\n" + (b"" if what == 2 else b"\r\n"))
            if what == 0:
                await asyncio.wait_for(r.read(5000), 5)
                w.transport.abort()
            elif what == 1:
                for _ in range(20):
                    if not await asyncio.wait_for(r.read(8000), 5):
                        break
                    await asyncio.sleep(0.1)
            else:
                await asyncio.wait_for(r.read(1000), 6)
            w.close()
        except (OSError, asyncio.TimeoutError):
            pass
        await asyncio.sleep(0.3)


async def tunnels(until):
    while time.monotonic() < until:
        try:
            r, w = await asyncio.open_connection("127.0.0.1", HTTP)
            w.write(b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            head = await asyncio.wait_for(r.readuntil(b"\r\n\r\n"), 5)
            if head.startswith(b"HTTP/1.1 101"):
                for _ in range(dice.randrange(1, 40)):
                    w.write(b"ping")
                    if not await asyncio.wait_for(r.read(4), 5):
                        break
                    await asyncio.sleep(0.2)
            w.close()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.2)


async def faults(origins, until):
    while time.monotonic() < until - 15:
        await asyncio.sleep(dice.uniform(4, 10))
        region, mode = dice.choice(["east", "west"]), dice.choice(MODES)
        hit = [o for o in origins if o.region == region][: dice.choice([1, 2])]
        for o in hit:
            await o.set(mode)
        await asyncio.sleep(dice.uniform(1, 6))
        for o in hit:
            await o.set("ok")


async def reloads(until):
    while time.monotonic() < until - 15:
        await asyncio.sleep(20)
        config(*dice.choice([(50, 50), (80, 20), (100, 1)]))
    config(50, 50)


async def http2(until):
    if not shutil.which("h2load"):
        return print("h2load is not installed: no HTTP/2 in this run")
    while time.monotonic() < until - 12:
        p = await asyncio.create_subprocess_exec("h2load", "-D", "10", "-c", "4", "--rps", str(max(1, RATE // 20)), f"https://127.0.0.1:{HTTPS}/h2", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        out, _ = await p.communicate()
        if m := re.search(rb"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out):
            good, bad = int(m[1]), int(m[4])
            a, b = count.get("h2", (0, 0))
            count["h2"] = (a + good, b + bad)


def metrics():
    with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN}/metrics", timeout=5) as r:
        return r.read().decode()


def gauge(text, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{") or line.startswith(name + " "))


def look(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    text = metrics()
    return {"rss_mib": round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1), "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "connections": int(gauge(text, "evenkeel_connections")), "inflight": int(gauge(text, "evenkeel_inflight"))}


async def main():
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=a.test",
                    "-addext", "subjectAltName=DNS:a.test", "-keyout", f"{D}/key.pem", "-out", f"{D}/cert.pem"], check=True, capture_output=True)
    origins = [Origin("east", 18101), Origin("east", 18102), Origin("west", 18201), Origin("west", 18202)]
    for o in origins:
        await o.up()
    config(50, 50)
    proxy = subprocess.Popen([BIN, "run", "--config", f"{D}/evenkeel.yaml"], stderr=open(D / "log", "w"))
    try:
        for _ in range(200):
            await asyncio.sleep(0.1)
            try:
                first = await asyncio.to_thread(look, proxy.pid)
                break
            except OSError:
                pass
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        tls.set_alpn_protocols(["http/1.1"])
        until, began, seen = time.monotonic() + SECS, time.monotonic(), []

        async def watch():
            while time.monotonic() < until:
                await asyncio.sleep(10)
                seen.append(await asyncio.to_thread(look, proxy.pid))
                if len(seen) % 6 == 0:
                    print(f"{int(time.monotonic() - began):5} s  {seen[-1]}  {count}", flush=True)
        upload = lambda: b"POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 65536\r\n\r\n" + b"u" * 65536
        chunked = lambda: b"PUT /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n" + b"800\r\n" + b"c" * 2048 + b"\r\n0\r\n\r\n"
        get = lambda: GET % dice.randrange(50)
        await asyncio.gather(watch(), faults(origins, until), reloads(until), http2(until), tunnels(until), tunnels(until), *[leaver(until) for _ in range(3)],
                             steady(Client("h1"), RATE * 0.5, get, until), steady(Client("tls", tls), RATE * 0.3, get, until),
                             steady(Client("upload"), RATE * 0.05, upload, until), steady(Client("chunked"), RATE * 0.05, chunked, until))
        # Idle connections to backends time out after 30 s.
        last = None
        for _ in range(60):
            await asyncio.sleep(1)
            last = await asyncio.to_thread(look, proxy.pid)
            if last["inflight"] == 0 and last["connections"] <= 1 and last["fds"] <= first["fds"] + 12:
                break
        proxy.terminate()
        left = await asyncio.to_thread(proxy.wait, 30)
    finally:
        proxy.kill()
    warm = seen[min(len(seen) // 4, 60):]
    half = len(warm) // 2
    mean = lambda part: round(sum(s["rss_mib"] for s in part) / max(1, len(part)), 1)
    # One log line a panic; a proxy that answers everything else well must not have one.
    panics = (D / "log").read_text().count("panicked")
    print(json.dumps({"seconds": SECS, "before": first, "after": last, "rss_mib_halves": [mean(warm[:half]), mean(warm[half:])], "most": {k: max(s[k] for s in seen) for k in seen[0]},
                      "requests": count, "exit": left, "panics": panics}, indent=1))
    leaked = last["inflight"] or last["connections"] > 1 or last["fds"] > first["fds"] + 12 or mean(warm[half:]) > mean(warm[:half]) * 1.1 + 2
    sys.exit(1 if leaked or left or panics else 0)


asyncio.run(main())
