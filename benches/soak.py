#!/usr/bin/env python3
"""No false alarm: healthy regions on real sockets, with what healthy regions do. Needs root and the failover exam:

    EVENKEEL_BIN=... EXAM=../shared/exam/failover benches/soak.py [SECONDS=600] [SEED=1]

300 requests/s in an open loop; every one to three seconds one app server stands still for 20 to 200 ms (garbage
collection); every minute five seconds of four times the rate, five seconds in which somebody else takes both CPUs, and ten
in which one app server is 30 ms slower. No pool may trip. Prints what users felt; exit 1 if anything tripped."""
import importlib.util, json, os, random, signal, subprocess, sys, threading, time

EXAM = os.environ.get("EXAM", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../shared/exam/failover"))
sys.path.insert(0, EXAM)
import lab as L
from score import kind, load_rows

spec = importlib.util.spec_from_file_location("adapter", os.path.join(os.path.dirname(os.path.abspath(__file__)), "failover_adapter.py"))
adapter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(adapter)


def pauses(lab, dice, end):
    while time.time() < end:
        time.sleep(dice.uniform(1, 3))
        origin = lab.origin_proc[dice.choice(sorted(lab.origin_proc))]
        origin.send_signal(signal.SIGSTOP)
        time.sleep(dice.uniform(0.02, 0.2))
        origin.send_signal(signal.SIGCONT)


def bursts(lab, end, seed):
    n = 0
    while time.time() + 60 < end:
        time.sleep(15)
        n += 1
        burst = lab.spawn([f"{L.BIN}/load", "--target", "%s:%d" % lab.LISTEN, "--out", f"{lab.dir}/burst{n}.tsv", "--rate", "900", "--secs", "5",
                           "--seed", str(seed + n)], log="burst.log", stdout=subprocess.DEVNULL)
        burst.wait()
        time.sleep(10)
        hogs = [subprocess.Popen([sys.executable, "-c", "import time\nend = time.time() + 5\nwhile time.time() < end: pass"]) for _ in range(2)]
        for hog in hogs:
            hog.wait()
        time.sleep(5)
        slow = f"east{n % 3 + 1}"
        lab.ask(slow, "set latency_ms=30")
        time.sleep(10)
        lab.ask(slow, "set latency_ms=0")
        time.sleep(10)


def main():
    seconds, seed = int(sys.argv[1] if len(sys.argv) > 1 else 600), int(sys.argv[2] if len(sys.argv) > 2 else 1)
    L.build_tools()
    lab = L.Lab(L.default_regions(), "soak")
    peer = None
    try:
        lab.up()
        peer = adapter.Peer(lab)
        peer.write_config()
        peer.start()
        peer.ready()
        time.sleep(1.5)
        client, _ = lab.load(rate=300, secs=seconds, seed=seed)
        end = time.time() + seconds
        threads = [threading.Thread(target=pauses, args=(lab, random.Random(seed), end)), threading.Thread(target=bursts, args=(lab, end, seed))]
        [t.start() for t in threads]
        client.wait()
        [t.join() for t in threads]
    finally:
        if peer:
            peer.stop()
        lab.down()
    rows = load_rows(f"{lab.dir}/load.tsv")
    for name in sorted(os.listdir(lab.dir)):
        if name.startswith("burst") and name.endswith(".tsv"):
            rows += load_rows(f"{lab.dir}/{name}")
    said = [json.loads(line) for line in open(f"{lab.dir}/evenkeel.log") if line.startswith("{")]
    count = lambda word: sum(word in s["message"] for s in said)
    bad = [kind(r) for r in rows if kind(r) != "ok"]
    lat = sorted(r["lat"] for r in rows)
    print(f"{len(rows)} requests, {len(bad)} not good {dict((k, bad.count(k)) for k in set(bad))}, "
          f"degraded {sum(r['degraded'] for r in rows)}, p50 {lat[len(lat) // 2]:.0f} ms, p99 {lat[len(lat) * 99 // 100]:.0f} ms")
    print(f"suspect {count(' suspect: ')} times, endpoints out {count(' out: ')} times, states held {count('states are held')} times, "
          f"tripped {count(' tripped: ')} times; {lab.dir}")
    for s in said:
        if " tripped: " in s["message"]:
            print(s["time"], s["message"])
    sys.exit(1 if count(" tripped: ") else 0)


main()
