#!/usr/bin/env python3
"""Is failover over TLS as good as over plain HTTP, and how many handshakes does the survivor see?

    EVENKEEL_BIN=target/quick/evenkeel benches/tls_failover.py [--rate 300] [--rounds 3]

In a network namespace of its own (needs root): two regions of two servers each (haproxy, which answers by itself), east is
black-holed by nftables for 4 s (packets vanish, connections stay), an open-loop client at `--rate`, a fifth of it writes. Prints, interleaved, for plain
and TLS: failed requests, the time until the last failed or late (over 250 ms) request after the fault, p99 in the fault, and
for TLS the handshakes at west: before, in the worst 100 ms of the shift, and in all.
"""
import argparse, asyncio, os, pathlib, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument("--rate", type=int, default=300)
ap.add_argument("--rounds", type=int, default=3)
ap.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
A = ap.parse_args()
BIN = os.environ.get("EVENKEEL_BIN") or "target/quick/evenkeel"

if not A.inside:
    for tool in ("haproxy", "nft", "openssl", "unshare"):
        if not shutil.which(tool):
            sys.exit(f"tls_failover.py needs {tool}")
    os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv, "--inside"])

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def origins(d, tls):
    bind = f" ssl crt {d}/both.pem alpn http/1.1" if tls else ""
    procs = []
    for region, net in (("east", 1), ("west", 2)):
        cfg = f"""global
  stats socket {d}/{region}.sock
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 1s
  timeout http-keep-alive 60s
frontend all
""" + "".join(f"  bind 127.0.{net}.{i}:8443{bind}\n" for i in (1, 2)) + f"""  http-request return status 200 content-type text/plain string "{region}"
"""
        (d / f"{region}.cfg").write_text(cfg)
        procs.append(subprocess.Popen(["haproxy", "-db", "-q", "-f", f"{d}/{region}.cfg"]))
    return procs


def handshakes(d, region):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"{d}/{region}.sock")
        s.sendall(b"show info\n")
        text = b""
        while part := s.recv(65536):
            text += part
    return int(re.search(rb"CumSslConns: (\d+)", text)[1])


def config(d, tls):
    kind = "tls: {ca: ca.pem, sni: a.test}, " if tls else ""
    pool = lambda n: f"{{endpoints: [\"127.0.{n}.1:8443\", \"127.0.{n}.2:8443\"]}}"
    (d / "evenkeel.yaml").write_text(f"""version: 1
edge: {{threads: 1, state_dir: state}}
listeners: [{{address: "127.0.0.1:8080"}}]
admin: {{address: "127.0.0.1:9900"}}
regions: {{east: {{weight: 50}}, west: {{weight: 50}}}}
services: {{app: {{{kind}pools: {{east: {pool(1)}, west: {pool(2)}}}, health: {{interval: 500ms, path: /}}}}}}
routes: [{{name: all, service: app, deadline: 1900ms}}]
""")


async def ask(pool, write):
    reader = writer = None
    try:
        reader, writer = pool.pop() if pool else await asyncio.open_connection("127.0.0.1", 8080)
        writer.write(b"POST /w HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\nx" if write else b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
        n = int(re.search(rb"content-length: (\d+)", head.lower())[1])
        await reader.readexactly(n)
        if b"connection: close" in head.lower():
            writer.close()
        else:
            pool.append((reader, writer))
        return head.startswith(b"HTTP/1.1 200")
    except Exception:
        if writer:
            writer.close()
        return False


async def load(d, tls, rows, marks):
    pool, tasks, start = [], [], time.monotonic()
    seen = []

    async def one(i, due):
        await asyncio.sleep(max(0, start + due - time.monotonic()))
        good = await ask(pool, i % 5 == 0)
        rows.append((due, time.monotonic() - start - due, good))

    async def watch():
        while True:
            if tls:
                seen.append((time.monotonic() - start, handshakes(d, "west")))
            await asyncio.sleep(0.1)

    async def fault():
        await asyncio.sleep(4)
        subprocess.run(["nft", "-f", "-"], check=True, text=True, input="""table inet hole {
  chain in {
    type filter hook input priority 0
    ip daddr 127.0.1.0/24 drop
    ip saddr 127.0.1.0/24 drop
  }
}
""")
        marks["fault"] = time.monotonic() - start
        await asyncio.sleep(4)
        subprocess.run(["nft", "delete", "table", "inet", "hole"], check=True)

    watcher = asyncio.create_task(watch())
    tasks = [asyncio.create_task(one(i, i / A.rate)) for i in range(A.rate * 8)]
    await asyncio.gather(fault(), *tasks)
    watcher.cancel()
    return seen


def once(tls):
    d = pathlib.Path(tempfile.mkdtemp(prefix="ek-tls-"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=a.test",
                    "-addext", "subjectAltName=DNS:a.test", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", f"{d}/key.pem", "-out", f"{d}/ca.pem"], check=True, capture_output=True)
    (d / "both.pem").write_text((d / "ca.pem").read_text() + (d / "key.pem").read_text())
    procs = origins(d, tls)
    config(d, tls)
    procs.append(subprocess.Popen([BIN, "run", "--config", f"{d}/evenkeel.yaml"], stderr=open(d / "log", "w")))
    try:
        deadline = time.time() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", 9900), 1) as s:
                    s.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:9900\r\nConnection: close\r\n\r\n")
                    if s.recv(100).startswith(b"HTTP/1.1 200"):
                        break
            except OSError:
                pass
            if time.time() > deadline:
                sys.exit(f"the proxy does not come up: {(d / 'log').read_text()[-800:]}")
            time.sleep(0.1)
        time.sleep(1.5)
        rows, marks = [], {}
        seen = asyncio.run(load(d, tls, rows, marks))
    finally:
        for p in procs:
            p.send_signal(signal.SIGKILL)
            p.wait()
    f = marks["fault"]
    hurt = [due for due, took, good in rows if due >= f - 1 and due + took >= f and (not good or took > 0.25)]
    within = sorted(took for due, took, _ in rows if f <= due < f + 4)
    steps = [(b[1] - a[1]) for a, b in zip(seen, seen[1:]) if a[0] >= f - 0.1 and a[0] < f + 1.5]
    calm = [n for t, n in seen if t < f]
    return {"failed": sum(not good for *_, good in rows), "hurt": len(hurt), "recovered_s": round(max([0, *hurt]) - f, 2) if hurt else 0,
            "p99_ms": round(within[int(len(within) * 0.99)] * 1000), "hs_before": calm[-1] if calm else None,
            "hs_worst_100ms": max(steps, default=None), "hs_shift": sum(steps) if steps else None}


for n in range(A.rounds):
    for tls in (False, True):
        print("tls  " if tls else "plain", once(tls), flush=True)
