#!/usr/bin/env python3
"""Does `evenkeel rehearse` foretell what the failover exam measures?

    compare.py --bin target/quick/evenkeel --exam ../shared/exam/failover [--seeds 1,2,3] [--results FILE...]

Runs the exam's overload, cold_return and error_burst (or takes saved results), rehearses the same worlds under the very
config that the exam's adapter wrote, and compares the failed share (of what had to be served) and the time to recover.
Agreement: within a factor of two, or both below what 300 requests a second can resolve. Exit 1: no agreement."""
import argparse, json, os, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SCENARIOS = ["overload", "cold_return", "error_burst"]
EXCUSED = {"overload": ("recommendations", "recommendations-us")}
# Failed share in percent, seconds: less than this is not told apart from nothing.
RESOLUTION = (0.1, 0.25)


def foretold(binary, config, name, seed):
    out = subprocess.run([binary, "rehearse", "--config", config, "--scenario", f"{HERE}/{name}.yaml", "--seed", str(seed), "--json"],
                         capture_output=True, text=True)
    if out.returncode == 2:
        sys.exit(out.stderr)
    r = json.loads(out.stdout)
    cold = name == "cold_return"           # the exam scores the way back, not the outage before it
    t0, t1 = (r["healed_s"], 24) if cold else (r["fault_s"], r["healed_s"])
    due = [i for i, n in enumerate(r["route_names"]) if n not in EXCUSED.get(name, ())]
    steps = [s for s in r["timeline"] if t0 <= s["at"] < t1]
    asked, served = (sum(s[k][i] for s in steps for i in due) for k in ("asked", "served"))
    return 100 * (asked - served) / asked, r["settled_s"] if cold else r["failed_over_s"]


def measured(a, name):
    rows = []
    for path in a.results:
        rows += [r for r in json.load(open(path)) if r["scenario"] == name]
    for seed in [] if a.results else a.seeds:
        out = tempfile.mktemp(suffix=".json")
        subprocess.run([sys.executable, "failover.py", "--proxy", "evenkeel", "--adapter", os.path.abspath(f"{HERE}/../failover_adapter.py"),
                        "--scenario", name, "--seed", str(seed), "--out", out],
                       cwd=a.exam, env={**os.environ, "EVENKEEL_BIN": os.path.abspath(a.bin)}, check=True, stdout=subprocess.DEVNULL)
        rows += json.load(open(out))
    return rows


def near(a, b, least):
    a, b = (99 if x is None else x for x in (a, b))     # None: not before the fault was over
    return max(a, b) <= least or (min(a, b) > 0 and max(a, b) <= 2 * max(min(a, b), least / 2))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", required=True)
    p.add_argument("--exam", default="../shared/exam/failover")
    p.add_argument("--seeds", type=lambda s: s.split(","), default=["1", "2", "3"])
    p.add_argument("--results", nargs="*", default=[], metavar="FILE", help="saved results of the exam, instead of running it")
    a = p.parse_args()
    bad = 0
    show = lambda x: "never" if x is None else f"{x:.2f}"
    print(f"{'scenario':<14}{'failed %':>10}{'foretold':>10}{'recovered s':>13}{'foretold':>10}")
    for name in SCENARIOS:
        rows = measured(a, name)
        told = [foretold(a.bin, f"{rows[0]['dir']}/evenkeel.yaml", name, s) for s in (1, 2, 3)]
        mid = lambda v: (lambda m: None if m == 99 else m)(statistics.median(99 if x is None else x for x in v))
        fail, ttr = mid([r["fail_pct"] for r in rows]), mid([r["ttr_s"] for r in rows])
        f2, t2 = mid([t[0] for t in told]), mid([t[1] for t in told])
        ok = near(fail, f2, RESOLUTION[0]) and near(ttr, t2, RESOLUTION[1])
        bad += not ok
        print(f"{name:<14}{show(fail):>10}{show(f2):>10}{show(ttr):>13}{show(t2):>10}  {'agree' if ok else 'DISAGREE'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
