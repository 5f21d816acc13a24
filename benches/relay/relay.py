#!/usr/bin/env python3
"""Side by side: CPU per request, throughput, latency and memory of Evenkeel and other reverse proxies.

See README.md here. Python 3.11, standard library only. Needs rustc (once, for tools/), openssl,
wrk, h2load, taskset. All traffic stays on 127.0.0.1; only processes started here are stopped.
"""
import argparse, json, os, re, resource, shutil, signal, socket, ssl, statistics, subprocess
import sys, tempfile, time, tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("PERF_DIR", os.path.join(tempfile.gettempdir(), "ekperf")))
PORT0 = int(os.environ.get("PERF_PORT", "19000"))  # origins 1..3, peers from +100
ORIGINS = [PORT0 + 1, PORT0 + 2, PORT0 + 3]
TICK = os.sysconf("SC_CLK_TCK")

# name: (kind, what it shows, arguments)
WORKLOADS = {
    "h1":      ("wrk", "HTTP/1.1 keep-alive, 64 conns, 1 KiB", dict(path="/b/1024")),
    "h1-64":   ("wrk", "HTTP/1.1 keep-alive, 64 conns, 64 B", dict(path="/b/64")),
    "h1-100k": ("wrk", "HTTP/1.1 keep-alive, 64 conns, 100 KiB", dict(path="/b/102400")),
    "tls":     ("wrk", "TLS 1.3 HTTP/1.1 keep-alive, 64 conns, 1 KiB", dict(path="/b/1024", tls=True)),
    "tls-100k": ("wrk", "TLS 1.3 HTTP/1.1 keep-alive, 64 conns, 100 KiB", dict(path="/b/102400", tls=True)),
    "hs":      ("hs", "TLS 1.3 full handshake per request, P-256, 64 B", dict(path="/b/64", conns=16)),
    "h2":      ("h2load", "HTTP/2 TLS, 16 conns x 8 streams, 1 KiB", dict(path="/b/1024")),
    "conn":    ("wrk", "new plain connection per request, 1 KiB", dict(path="/b/1024", close=True, conns=32)),
    "lat":     ("pace", "open loop 2000 req/s, 32 conns, 1 KiB", dict(path="/b/1024", rate=2000)),
    "idle":    ("idle", "10,000 idle keep-alive connections (1 request each)", dict(tls=False)),
    "idle-tls": ("idle", "10,000 idle TLS keep-alive connections (1 request each)", dict(tls=True)),
}


# ---------------------------------------------------------------- processes
def tree(pid):
    """pid and all its descendants."""
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                f = Path(f"/proc/{d}/stat").read_text().rsplit(")", 1)[1].split()
                kids.setdefault(int(f[1]), []).append(int(d))
            except OSError:
                pass
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def cpu(pid):
    """user, sys seconds of a process tree (all threads; reaped children included)."""
    u = s = 0
    for p in tree(pid):
        try:
            f = Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()
            u += int(f[11]) + int(f[13])
            s += int(f[12]) + int(f[14])
        except OSError:
            pass
    return u / TICK, s / TICK


def rss(pid):
    """proportional set size of the tree, KiB (private + a share of shared pages)."""
    kb = 0
    for p in tree(pid):
        try:
            kb += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{p}/smaps_rollup").read_text(), re.M)[1])
        except OSError:
            pass
    return kb


def core_busy(n):
    """busy seconds of core n (all but idle and iowait): catches work billed to nobody."""
    f = [int(x) for x in re.search(rf"^cpu{n} (.*)$", Path("/proc/stat").read_text(), re.M)[1].split()]
    return (sum(f[:8]) - f[3] - f[4]) / TICK


def get(port, path, tls=False, timeout=2):
    s = socket.create_connection(("127.0.0.1", port), timeout)
    if tls:
        s = CTX.wrap_socket(s, server_hostname="bench.test")
    with s:
        return ask(s, path, "Connection: close\r\n")


def ask(s, path, more=""):
    """one request; the whole response (a TLS proxy may send head and body as two records)."""
    data = b""
    try:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: bench.test\r\n{more}\r\n".encode())
        while b := s.recv(65536):
            data += b
            if m := re.search(rb"(?i)\r\ncontent-length: *(\d+).*?\r\n\r\n", data, re.S):
                if len(data) >= m.end() + int(m[1]):
                    break
    except (ssl.SSLError, ConnectionError):
        pass
    return data


CTX = ssl.create_default_context()
CTX.check_hostname, CTX.verify_mode = False, ssl.CERT_NONE


class Bench:
    def __init__(self, a):
        self.a, self.procs, self.ports = a, {}, {}
        WORK.mkdir(parents=True, exist_ok=True)
        (WORK / "bin").mkdir(exist_ok=True)
        for t in ("origin", "pace"):
            src, out = HERE / "tools" / f"{t}.rs", WORK / "bin" / t
            if not out.exists() or out.stat().st_mtime < src.stat().st_mtime:
                subprocess.run(["rustc", "--edition", "2021", "-O", "-o", out, src], check=True)
        cert, key, pem = (WORK / f for f in ("cert.pem", "key.pem", "both.pem"))
        if not pem.exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                            "-nodes", "-days", "30", "-subj", "/CN=bench.test", "-addext",
                            "subjectAltName=DNS:bench.test,DNS:localhost,IP:127.0.0.1",
                            "-keyout", key, "-out", cert], check=True, capture_output=True)
            pem.write_text(cert.read_text() + key.read_text())
        self.vars = {"CERT": cert, "KEY": key, "PEM": pem, "WORKERS": a.workers}
        self.vars |= {f"O{i}": p for i, p in enumerate(ORIGINS, 1)}
        self.px = [] if a.unpinned else ["taskset", "-c", "0"]
        self.gx = [] if a.unpinned else ["taskset", "-c", "1"]

    def spawn(self, name, argv, env=None, pin=()):
        log = open(WORK / f"{name}.log", "wb")
        p = subprocess.Popen([*pin, *map(str, argv)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                             env={**os.environ, **(env or {})}, start_new_session=True)
        self.procs[name] = p
        return p

    def stop(self, name):
        p = self.procs.pop(name)
        for sig, wait in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            for pid in tree(p.pid):
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
            try:
                p.wait(wait)
                return
            except subprocess.TimeoutExpired:
                pass

    def close(self):
        for n in list(self.procs):
            self.stop(n)

    def wait(self, name, port, path, tls=False):
        end = time.time() + 20
        while time.time() < end:
            if self.procs[name].poll() is not None:
                break
            try:
                if b" 200 " in get(port, path, tls)[:16]:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{name} does not answer on {port}: see {WORK}/{name}.log")

    def start(self):
        self.spawn("origin", [WORK / "bin/origin", *ORIGINS], pin=self.gx)
        self.wait("origin", ORIGINS[0], "/health")
        table = tomllib.loads((HERE / "peers/peers.toml").read_text())
        for extra in self.a.peers_file:
            table |= tomllib.loads(Path(extra).read_text())
        names = self.a.peers or [n for n, c in table.items() if not c.get("disabled")]
        self.names, self.table, i = [], table, 0
        for n in names:
            i += 1
            if n == "direct":
                self.ports[n] = (ORIGINS[0], None)
                self.names.append(n)
                continue
            if not shutil.which(os.path.expandvars(self.sub(n, table[n]["run"][0], i))):
                print(f"# {n}: {table[n]['run'][0]} not found, skipped")
                continue
            self.start_peer(n, i)
            self.names.append(n)

    def sub(self, name, text, i):
        v = self.vars | {"HTTP": PORT0 + 100 + 2 * i, "HTTPS": PORT0 + 101 + 2 * i, "DIR": WORK / name}
        for k, x in v.items():
            text = text.replace(f"@{k}@", str(x))
        return text

    def start_peer(self, n, i):
        c = self.table[n]
        (WORK / n).mkdir(exist_ok=True)
        for f in c.get("config", []):
            (WORK / n / f).write_text(self.sub(n, (HERE / "peers" / f).read_text(), i))
        self.ports[n] = (PORT0 + 100 + 2 * i, PORT0 + 101 + 2 * i)
        self.spawn(n, [os.path.expandvars(self.sub(n, x, i)) for x in c["run"]],
                   {k: self.sub(n, x, i) for k, x in c.get("env", {}).items()}, self.px)
        self.wait(n, self.ports[n][0], "/b/1024")
        if not c.get("no_tls"):
            self.wait(n, self.ports[n][1], "/b/1024", tls=True)

    def restart(self, n):
        i = (self.ports[n][0] - PORT0 - 100) // 2
        self.stop(n)
        self.start_peer(n, i)

    # ------------------------------------------------------------ one measurement
    def count(self):
        return int(get(ORIGINS[0], "/count").split(b"\r\n\r\n", 1)[1])

    def run(self, name, load, secs):
        kind, _, o = WORKLOADS[load]
        pid = self.procs["origin" if name == "direct" else name].pid
        tls = o.get("tls") or kind in ("hs", "h2load")
        port = self.ports[name][1 if tls else 0]
        if port is None or (tls and self.table.get(name, {}).get("no_tls")) or (
                kind == "h2load" and self.table.get(name, {}).get("no_h2")):
            return None
        if kind == "idle":
            return self.idle(name, port, o["tls"])
        conns = o.get("conns", 64)
        url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{o['path']}"
        argv = {
            "wrk": ["wrk", "-t1", f"-c{conns}", f"-d{secs}s", "-H", "Host: bench.test",
                    *(["-H", "Connection: close"] if o.get("close") else []), url],
            "hs": ["hey", "-z", f"{secs}s", "-c", str(conns), "-disable-keepalive", "-host", "bench.test", url],
            "h2load": ["h2load", "-t1", "-c16", "-m8", "-D", str(secs), "--connect-to",
                       f"127.0.0.1:{port}", f"https://bench.test:{port}{o['path']}"],
            "pace": [WORK / "bin/pace", port, o["path"], o.get("rate"), "32", secs + 1],
        }[kind]
        n0, c0, b0, t0 = self.count(), cpu(pid), core_busy(0), time.time()
        r = subprocess.run([*self.gx, *map(str, argv)], capture_output=True, text=True, timeout=secs + 20,
                           env={**os.environ, "GOMAXPROCS": "1"})
        t1, b1, c1, n1 = time.time(), core_busy(0), cpu(pid), self.count()
        n, u, s = n1 - n0, c1[0] - c0[0], c1[1] - c0[1]
        if not n:
            return None
        out = dict(n=n, rps=n / (t1 - t0), us=(u + s) / n * 1e6, user=u / n * 1e6, sys=s / n * 1e6,
                   core=(b1 - b0) / n * 1e6, busy=(u + s) / (t1 - t0), bad=bad(kind, r.stdout + r.stderr))
        if kind == "pace":
            j = json.loads(r.stdout)
            out |= {k: j[k] for k in ("p50", "p90", "p99", "p999", "max")}
        return out

    def idle(self, name, port, tls, n=10000):
        self.restart(name) if name != "direct" else None
        pid = self.procs["origin" if name == "direct" else name].pid
        for _ in range(50):
            get(port, "/b/1024", tls)
        time.sleep(1)
        before, held = rss(pid), []
        try:
            for _ in range(n):
                s = socket.create_connection(("127.0.0.1", port), 5)
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if tls:
                    s = CTX.wrap_socket(s, server_hostname="bench.test")
                ask(s, "/b/64")
                held.append(s)
            time.sleep(2)
            c0 = cpu(pid)
            time.sleep(3)
            c1 = cpu(pid)
            after = rss(pid)
            alive = 0
            for s in held[:: n // 100]:
                alive += ask(s, "/b/64").startswith(b"HTTP/1.1 200")
        finally:
            for s in held:
                s.close()
        time.sleep(1)
        return dict(base_mb=before / 1024, idle_mb=after / 1024, kb_conn=(after - before) / n,
                    idle_cpu_pct=(sum(c1) - sum(c0)) / 3 * 100, alive=alive)


def bad(kind, text):
    """failed requests as the generator saw them."""
    if kind == "wrk":
        n = int((re.search(r"Non-2xx or 3xx responses: (\d+)", text) or [0, 0])[1])
        m = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        return n + (sum(map(int, m.groups())) if m else 0)
    if kind == "h2load":
        m = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
        return sum(map(int, m.groups())) if m else -1
    if kind == "hs":  # hey: "[200]  N responses", then "Error distribution:" with "[N]  text"
        ok, _, err = text.partition("Error distribution:")
        return (sum(int(n) for c, n in re.findall(r"^\s+\[(\d+)\]\s+(\d+) responses", ok, re.M) if c != "200")
                + sum(int(n) for n in re.findall(r"^\s+\[(\d+)\]", err, re.M)))
    return json.loads(text)["errors"] if text.strip().startswith("{") else -1


def report(results, names, loads, refs):
    med = {}
    for (n, w), rs in results.items():
        med[n, w] = {k: statistics.median(r[k] for r in rs) for k in rs[0]}
        if "p99" in rs[0]:  # latency: the calmest round, not a mix of rounds
            med[n, w] |= {k: v for k, v in min(rs, key=lambda r: r["p99"]).items() if k[0] == "p" or k == "max"}
        if "us" in rs[0]:
            v = sorted(r["us"] for r in rs)
            med[n, w]["min"] = v[0]  # noise only ever adds: the minimum is the best estimate
            med[n, w]["spread"] = (v[-1] - v[0]) / med[n, w]["us"] * 100 if med[n, w]["us"] else 0
    lines = []
    for w in loads:
        rows = [n for n in names if (n, w) in med]
        if not rows:
            continue
        lines.append(f"\n### {w}: {WORKLOADS[w][1]}\n")
        if "kb_conn" in med[rows[0], w]:
            lines += ["| peer | base MB | with 10k MB | KiB/conn | idle CPU % | alive/100 |", "|---|---|---|---|---|---|"]
            for n in rows:
                m = med[n, w]
                lines.append(f"| {n} | {m['base_mb']:.1f} | {m['idle_mb']:.1f} | {m['kb_conn']:.1f} | {m['idle_cpu_pct']:.1f} | {m['alive']:.0f} |")
            continue
        lat = "p50" in med[rows[0], w]
        refs_ = [r for r in refs if (r, w) in med]
        lines.append("| peer | CPU us/req | min | user | sys | spread % | core0 us/req | busy | RPS |"
                     + "".join(f" vs {r} |" for r in refs_) + (" p50 | p90 | p99 | p99.9 | max us |" if lat else "") + " bad |")
        lines.append("|" + "---|" * (10 + len(refs_) + (5 if lat else 0)))
        for n in rows:
            m = med[n, w]
            row = (f"| {n} | **{m['us']:.1f}** | {m['min']:.1f} | {m['user']:.1f} | {m['sys']:.1f} | {m['spread']:.0f} | {m['core']:.1f} "
                   f"| {m['busy']:.2f} | {m['rps']:.0f} |")
            row += "".join(f" {m['us'] / med[r, w]['us']:.2f} ({m['min'] / med[r, w]['min']:.2f}) |" for r in refs_)
            if lat:
                row += "".join(f" {m[k]:.0f} |" for k in ("p50", "p90", "p99", "p999", "max"))
            lines.append(row + f" {m['bad']:.0f} |")
    return "\n".join(lines)


COLOURS = {"evenkeel": "#0b7285", "haproxy": "#868e96", "nginx": "#adb5bd", "envoy": "#ced4da", "traefik": "#dee2e6", "floor": "#e9ecef"}


def chart(results, names, loads):
    """An SVG of bars: CPU microseconds per request (KiB per connection for idle ones), medians, one panel per workload."""
    panels = []
    for w in loads:
        rows = [(n, statistics.median(r.get("us", r.get("kb_conn", 0)) for r in results[n, w])) for n in names if n != "direct" and (n, w) in results]
        if rows:
            panels.append((w, rows, "KiB/conn" if WORKLOADS[w][0] == "idle" else "µs/request"))
    wide, bar, out, y = 760, 18, [], 10
    for w, rows, unit in panels:
        y += 22
        out.append(f'<text x="10" y="{y}" class="h">{w}: {WORKLOADS[w][1]} ({unit})</text>')
        y += 8
        most = max(v for _, v in rows) or 1
        for n, v in rows:
            length = max(1, (wide - 240) * v / most)
            out.append(f'<text x="110" y="{y + 13}" text-anchor="end">{n}</text><rect x="118" y="{y + 1}" width="{length:.0f}" height="{bar - 4}" fill="{COLOURS.get(n, "#ced4da")}"/>'
                       f'<text x="{124 + length:.0f}" y="{y + 13}">{v:.1f}</text>')
            y += bar
        y += 8
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {y + 10}" font-family="system-ui, sans-serif" font-size="12">'
            f'<rect width="100%" height="100%" fill="#fff"/><style>text{{fill:#212529}}.h{{font-weight:600}}</style>' + "".join(out) + "</svg>\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--peers", nargs="*", help="default: every enabled peer; 'direct' = the origin itself")
    p.add_argument("--peers-file", nargs="*", default=[], help="more peer tables (TOML), e.g. build variants")
    p.add_argument("--loads", nargs="*", default=["h1", "h1-100k", "tls", "hs", "h2", "conn", "lat"], choices=WORKLOADS)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--secs", type=int, default=3, help="seconds per run (at most 10)")
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--unpinned", action="store_true")
    p.add_argument("--nice", type=int, default=0, help="priority of proxies, origin and load generator")
    p.add_argument("--refs", nargs="*", default=["haproxy", "floor"], help="ratio columns")
    p.add_argument("--out", help="write the report here as well, a chart beside it (.svg), and FILE.json with every run")
    a = p.parse_args()
    a.secs = min(a.secs, 10)
    try:  # proxies and the connection holder inherit it
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
    except ValueError:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peers are stopped
    if a.nice:
        os.nice(a.nice)
    b, results = Bench(a), {}
    try:
        b.start()
        for w in a.loads:
            one_shot = WORKLOADS[w][0] == "idle"
            for rnd in range(1 if one_shot else a.rounds + 1):  # round 0 warms up, not counted
                for n in b.names:
                    r = b.run(n, w, 1 if rnd == 0 and not one_shot else a.secs)
                    if r and (rnd or one_shot):
                        results.setdefault((n, w), []).append(r)
                        print(w, rnd, n, json.dumps({k: round(x, 2) for k, x in r.items()}), file=sys.stderr, flush=True)
    finally:
        b.close()
    text = (f"perf: {time.strftime('%F %T')} workers={a.workers} {'unpinned' if a.unpinned else 'pinned'} "
            f"rounds={a.rounds} secs={a.secs}\n" + report(results, b.names, a.loads, a.refs))
    print(text)
    if a.out:
        Path(a.out).write_text(text + "\n")
        Path(a.out).with_suffix(".svg").write_text(chart(results, b.names, a.loads))
        Path(a.out + ".json").write_text(json.dumps([dict(peer=n, load=w, runs=r) for (n, w), r in results.items()]))


if __name__ == "__main__":
    main()
