#!/usr/bin/env python3
"""What watching costs those who are watched: the data path beside stalled readers, a slow disk, a busy scraper, a reader of incidents.

    EVENKEEL_BIN=target/quick/evenkeel benches/side_costs.py [--rounds 6] [--secs 5] [--rate 1500] [--only NAME ...] [--json FILE]

One proxy with many routes, an open-loop load (tools of benches/relay), and rounds in turn: calm, disturbed, calm, disturbed … Two
ratios against the calm rounds around it, medians over the rounds:

    work   CPU time of the worker threads per request: what requests themselves pay
    all    CPU time of the whole process per request: what the machine pays, the disturbance's own cost included
    p99    of the load, timed from when each request was due

A spread is given beside each: the calm rounds against each other. What is below that is not measurable here. On a machine that is
busy with other things only `work` and `all` mean much. Standard library, gcc and rustc; everything on 127.0.0.1."""
import argparse, json, os, socket, statistics, subprocess, sys, tempfile, threading, time, urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")

# Every write and sync of a journal segment takes so long.
SLOW_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
static int slow(int fd) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    struct stat at;
    char flag[600];
    char *end = strstr(path, "/journal/journal-");
    if (!end) return 0;
    snprintf(flag, sizeof flag, "%.*s/slow", (int)(end - path), path);
    return stat(flag, &at) == 0;
}
static void wait_a_while(int fd) { struct timespec t = {0, 400000000}; if (slow(fd)) nanosleep(&t, 0); }
ssize_t write(int fd, const void *b, size_t n) { static ssize_t (*real)(int, const void *, size_t); if (!real) real = dlsym(RTLD_NEXT, "write"); if (fd > 2) wait_a_while(fd); return real(fd, b, n); }
int fsync(int fd) { static int (*real)(int); if (!real) real = dlsym(RTLD_NEXT, "fsync"); wait_a_while(fd); return real(fd); }
int fdatasync(int fd) { static int (*real)(int); if (!real) real = dlsym(RTLD_NEXT, "fdatasync"); wait_a_while(fd); return real(fd); }
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, path, method="GET", body=None):
    r = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method=method, headers={"content-type": "application/json"})
    return urllib.request.urlopen(r, timeout=20).read()


def config(dir, port, admin, origins, routes):
    regions = ["east", "west", "eu"]
    pools = lambda: "".join(f"      {r}: {{endpoints: [\"127.0.0.1:{p}\"]}}\n" for r, p in zip(regions, origins))
    services = "".join(f"  s{n}:\n    pools:\n{pools()}    health: null\n" for n in range(8))
    text = f"version: 1\nedge: {{name: bench, threads: 1, state_dir: {dir}/state}}\nlisteners: [{{address: \"127.0.0.1:{port}\"}}]\n"
    text += f"admin: {{address: \"127.0.0.1:{admin}\"}}\nlogging: {{level: error}}\njournal: {{path: {dir}/state/journal, max_bytes: 256MiB}}\n"
    text += "regions: {east: {weight: 50}, west: {weight: 50}, eu: {tier: 2}}\nservices:\n" + services + "routes:\n"
    text += "".join(f"  - {{name: route-{n}, match: {{path_prefix: /r{n}/}}, service: s{n % 8}}}\n" for n in range(routes - 1))
    return text + "  - {name: all, service: s0}\n"


def old_journal(dir, mib):
    """What months leave behind: an outage of a pool every few minutes, in the journal's own form."""
    folder = Path(dir, "state/journal")
    folder.mkdir(parents=True)
    line = lambda seq, at, **kind: json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(at)), "edge": "bench", "seq": seq,
                                               "at": seq * 1000, "by": {"actor": "evenkeel"}, **kind}) + "\n"
    seq, at, per = 0, time.time() - 60 * 86400, 16 << 20
    for number in range(1, max(1, mib // 16) + 1):
        with open(folder / f"journal-{number:06}.jsonl", "w") as f:
            while f.tell() < min(per, mib << 20):
                cause = {"cause": "silence", "quiet_ms": 251, "waiting": 30}
                steps = [("serving", "tripped", cause), ("tripped", "trial", {"cause": "open_time_over", "open_s": 5}),
                         ("trial", "ramping", {"cause": "proven", "successes": 5}), ("ramping", "serving", {"cause": "recovered"})]
                for before, after, why in steps:
                    seq, at = seq + 1, at + 20
                    f.write(line(seq, at, kind="pool", service="s1", region="eu", **{"from": before, "to": after}, cause=why))
                at += 300


class Proxy:
    def __init__(self, a, dir):
        self.port, self.admin = free_port(), free_port()
        origins = [free_port() for _ in range(3)]
        self.origin = subprocess.Popen([a.tools / "origin", *map(str, origins)], stdout=subprocess.DEVNULL)
        if a.journal:
            old_journal(dir, a.journal)
        Path(dir, "e.yaml").write_text(config(dir, self.port, self.admin, origins, a.routes))
        shim = Path(dir, "slow.so")
        Path(dir, "slow.c").write_text(SLOW_DISK)
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", shim, Path(dir, "slow.c"), "-ldl"], check=True)
        env = {**os.environ, "LD_PRELOAD": str(shim)}
        self.process = subprocess.Popen([a.bin, "run", "--config", Path(dir, "e.yaml")], env=env)
        end = time.time() + 60
        while True:
            try:
                ask(self.admin, "/readyz")
                break
            except OSError:
                if time.time() > end:
                    raise
                time.sleep(0.05)

    def cpu(self):
        """Seconds so far: of the workers, of the whole process."""
        work = all = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
            except OSError:
                continue
            f = rest.split()
            used = int(f[11]) + int(f[12])
            # Finer than ticks, where the kernel says it.
            try:
                used = int((task / "schedstat").read_text().split()[0]) / 1e9 * TICK
            except OSError:
                pass
            all += used
            work += used if name.startswith("worker-") else 0
        return work / TICK, all / TICK

    def stop(self):
        for p in (self.process, self.origin):
            p.terminate()
            p.wait()


def repeated(every, do):
    """Does something again and again until told to stop."""
    over = threading.Event()

    def run():
        while not over.wait(every):
            try:
                do()
            except OSError:
                pass
    t = threading.Thread(target=run, daemon=True)
    t.start()
    return lambda: (over.set(), t.join())


def nothing(p):
    return lambda: None


def stalled_readers(p):
    """Eight readers of the event stream that never read, and something to tell them twenty times a second."""
    socks = []
    for _ in range(8):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", p.admin))
        s.sendall(f"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:{p.admin}\r\n\r\n".encode())
        socks.append(s)
    stop = busy_events(p)
    return lambda: (stop(), [s.close() for s in socks])


def busy_events(p):
    on = [False]

    def toggle():
        on[0] = not on[0]
        ask(p.admin, "/v1/freeze", "PUT", json.dumps({"on": on[0]}).encode())
    stop = repeated(0.05, toggle)

    def end():
        stop()
        ask(p.admin, "/v1/freeze", "PUT", b'{"on": false}')
    return end


def slow_disk(p):
    """Every write and sync of the journal takes 400 ms, and there is something to write twenty times a second."""
    flag = Path(p.dir, "state/slow")
    flag.touch()
    stop = busy_events(p)
    return lambda: (stop(), flag.unlink())


def scraper(p):
    """A scrape every 100 ms."""
    return repeated(0.1, lambda: ask(p.admin, "/metrics"))


def incidents(p):
    """The newest incidents five times a second: twenty-five open dashboards."""
    return repeated(0.2, lambda: ask(p.admin, "/v1/incidents?limit=20"))


def everything(p):
    stops = [d(p) for d in (stalled_readers, slow_disk, scraper, incidents)]
    return lambda: [s() for s in stops]


DISTURBANCES = {"stalled-readers": stalled_readers, "slow-disk": slow_disk, "scraper": scraper, "incidents": incidents, "everything": everything}


def round_of(a, p, disturb):
    stop = disturb(p)
    time.sleep(0.5)
    before = p.cpu()
    out = subprocess.run([a.tools / "pace", str(p.port), "/b/1024", str(a.rate), "32", str(a.secs)], capture_output=True, text=True, check=True)
    after = p.cpu()
    stop()
    said = json.loads(out.stdout)
    n = said["done"] or 1
    return {"work": (after[0] - before[0]) / n * 1e6, "all": (after[1] - before[1]) / n * 1e6, "p99": said["p99"] / 1e3, "bad": said.get("errors", 0)}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rounds", type=int, default=6)
    ap.add_argument("--secs", type=int, default=5)
    ap.add_argument("--rate", type=int, default=1500)
    ap.add_argument("--routes", type=int, default=100)
    ap.add_argument("--journal", type=int, default=64, help="MiB of journal that lie there already")
    ap.add_argument("--only", nargs="*", default=list(DISTURBANCES), choices=list(DISTURBANCES))
    ap.add_argument("--json")
    a = ap.parse_args()
    a.bin = os.environ.get("EVENKEEL_BIN", str(HERE.parent / "target/quick/evenkeel"))
    a.tools = Path(os.environ.get("PERF_DIR", os.path.join(tempfile.gettempdir(), "ekperf"))) / "bin"
    a.tools.mkdir(parents=True, exist_ok=True)
    for t in ("origin", "pace"):
        if not (a.tools / t).exists():
            subprocess.run(["rustc", "--edition", "2021", "-O", "-o", a.tools / t, HERE / "relay/tools" / f"{t}.rs"], check=True)
    results = {}
    with tempfile.TemporaryDirectory() as dir:
        p = Proxy(a, dir)
        p.dir = dir
        try:
            started = time.time()
            size = len(ask(p.admin, "/metrics"))
            times = []
            for _ in range(10):
                t = time.time(); ask(p.admin, "/metrics"); times.append((time.time() - t) * 1e3)
            t = time.time(); told = len(ask(p.admin, "/v1/incidents")); took = (time.time() - t) * 1e3
            print(f"{a.routes} routes, /metrics {size >> 10} KiB in {statistics.median(times):.1f} ms; {a.journal} MiB of journal, /v1/incidents {told >> 10} KiB in {took:.0f} ms")
            round_of(a, p, nothing)
            print(f"{'':16} {'work':>22} {'all':>22} {'p99':>22}   calm: µs, µs, ms")
            for name in a.only:
                calm, hurt = [round_of(a, p, nothing)], []
                for _ in range(a.rounds):
                    hurt.append(round_of(a, p, DISTURBANCES[name]))
                    calm.append(round_of(a, p, nothing))
                row = {}
                for key in ("work", "all", "p99"):
                    around = [(calm[i][key] + calm[i + 1][key]) / 2 for i in range(a.rounds)]
                    ratios = [h[key] / max(c, 1e-9) for h, c in zip(hurt, around)]
                    still = [calm[i + 1][key] / max(calm[i][key], 1e-9) for i in range(a.rounds)]
                    row[key] = (statistics.median(ratios), max(abs(s - 1) for s in sorted(still, key=lambda s: abs(s - 1))[: max(1, len(still) * 3 // 4)]))
                bad = sum(h["bad"] for h in hurt)
                cell = lambda key: f"{row[key][0]:.3f} (calm ±{row[key][1]:.3f})"
                mid = {k: statistics.median(c[k] for c in calm) for k in ("work", "all", "p99")}
                print(f"{name:16} {cell('work'):>22} {cell('all'):>22} {cell('p99'):>22}   {mid['work']:.1f}, {mid['all']:.1f}, {mid['p99']:.1f}" + (f"   {bad} failed" if bad else ""), flush=True)
                results[name] = {"ratios": {k: v[0] for k, v in row.items()}, "spread": {k: v[1] for k, v in row.items()}, "failed": bad}
        finally:
            p.stop()
    if a.json:
        Path(a.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
