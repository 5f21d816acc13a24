#!/usr/bin/env python3
"""User-space instructions per request, by callgrind: the same on every machine, so it shows what a change costs.

    EVENKEEL_BIN=target/release/evenkeel benches/relay/instructions.py [--peers evenkeel haproxy nginx] [--requests 8000]

Each proxy runs under valgrind with one worker and everything on that relay.py has on; 16 keep-alive connections send one GET of
1 KiB each at a time. Two runs of different length; the difference of the worker thread's totals divided by the
difference of the requests is the cost of one: start-up and warm-up cancel out. Needs valgrind and what relay.py needs."""
import argparse, os, re, select, shutil, socket, subprocess, sys, time, tomllib
from pathlib import Path
import relay

CONNS = 16


def drive(port, n):
    """n requests over CONNS connections, one outstanding on each; every answer must be a 200."""
    conns = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(CONNS)]
    ask = b"GET /b/1024 HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: instructions\r\nAccept: */*\r\n\r\n"
    done = 0
    while done < n:
        for s in conns:
            s.sendall(ask)
        left = {s: b"" for s in conns}
        while left:
            ready, _, _ = select.select(list(left), [], [], 120)
            if not ready:
                raise RuntimeError("no answer within 120 s")
            for s in ready:
                data = left[s] = left[s] + s.recv(65536)
                head, sep, body = data.partition(b"\r\n\r\n")
                if not sep:
                    continue
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"not a 200: {head[:80]!r}")
                length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
                if len(body) >= length:
                    del left[s]
                    done += 1
    for s in conns:
        s.close()
    return done


def total(bench, name, index, n):
    """Instructions of a whole life that serves n requests."""
    out = relay.WORK / name / "callgrind.out"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.parent.chmod(0o777)  # a worker that gave up root writes its own file
    for old in out.parent.glob("callgrind.out*"):
        old.unlink()
    entry = bench.table[name]
    plain = entry["run"]
    valgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={out}.%p", "--"]
    exe = os.path.expandvars(plain[0])
    bench.table[name] = {**entry, "run": valgrind + [shutil.which(exe) or exe] + plain[1:], "no_tls": True}
    bench.px = []
    try:
        bench.start_peer(name, index)
        drive(bench.ports[name][0], 200)
        did = drive(bench.ports[name][0], n)
    finally:
        bench.table[name] = entry
        if name in bench.procs:
            stop(bench.procs.pop(name))
    counts = [int(m[1]) for f in out.parent.glob("callgrind.out*") if (m := re.search(r"^(?:summary|totals): (\d+)", f.read_text(errors="replace"), re.M))]
    if not counts:
        raise RuntimeError(f"{name}: callgrind left no totals, see {relay.WORK}/{name}.log")
    # The busiest thread of the busiest process is the one worker. Control, probes and admin go by the clock, not by requests,
    # and the clock goes fifty times slower for requests under valgrind.
    return did, max(counts)


def stop(process, patience=60):
    """SIGTERM, and time for callgrind to write its file."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--peers", nargs="*", default=["evenkeel", "haproxy", "nginx"])
    p.add_argument("--requests", type=int, default=8000)
    a = p.parse_args()
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not installed: apt-get install valgrind")
    options = argparse.Namespace(peers=["direct"], peers_file=[], workers=1, unpinned=True)
    bench = relay.Bench(options)
    rows = []
    try:
        bench.start()
        for i, name in enumerate(a.peers, 2):
            exe = os.path.expandvars(bench.table[name]["run"][0])
            if not shutil.which(exe):
                print(f"# {name}: {exe} not found, skipped", file=sys.stderr)
                continue
            short, few = total(bench, name, i, a.requests // 8)
            long, many = total(bench, name, i, a.requests)
            rows.append((name, (many - few) / (long - short)))
            print(f"# {name}: {rows[-1][1]:.0f}", file=sys.stderr, flush=True)
    finally:
        bench.close()
    reference = dict(rows).get("haproxy")
    print("| proxy | instructions per request | of HAProxy's |\n|---|---|---|")
    for name, n in rows:
        print(f"| {name} | {n:,.0f} | {f'{n / reference:.2f}' if reference else '–'} |")


if __name__ == "__main__":
    main()
