#!/usr/bin/env python3
"""Writes acknowledged during a total outage while the proxy is killed with SIGKILL at random moments; then the outage ends.

Shown at the end: every acknowledged write was applied, exactly once at an origin that deduplicates by key, in the order of its order key.

    EVENKEEL_BIN=target/debug/evenkeel benches/spool_kill.py [--writes 10000] [--kills 50] [--lanes 100] [--seed 1]

Everything runs on 127.0.0.1, in a directory of its own. Exit 0: it held; 1: it did not, with the first failures.
"""
import argparse, http.client, http.server, json, os, random, signal, socket, subprocess, sys, tempfile, threading, time

BIN = os.environ.get("EVENKEEL_BIN", "target/debug/evenkeel")


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Origin:
    """Deduplicates by key. While it is down it resets every connection, now and then after it has applied the write."""

    def __init__(self):
        self.down, self.lock, self.seen, self.applied, self.repeats = True, threading.Lock(), {}, {}, 0
        origin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if origin.down:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.close_connection = True
                    self.connection.close()
                    return
                key, lane, n = self.headers["Idempotency-Key"], self.headers["X-Lane"], int(body.split()[0])
                with origin.lock:
                    if key in origin.seen:
                        origin.repeats += 1
                    else:
                        origin.seen[key] = len(body)
                        origin.applied.setdefault(lane, []).append(n)
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 1024

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Proxy:
    def __init__(self, folder, origin):
        self.port, self.admin, self.folder, self.process, self.kills = free(), free(), folder, None, 0
        config = {
            "version": 1,
            "edge": {"threads": 2, "state_dir": os.path.join(folder, "state")},
            "listeners": [{"address": f"127.0.0.1:{self.port}"}],
            "admin": {"address": f"127.0.0.1:{self.admin}"},
            "regions": {"east": {}, "west": {}},
            "services": {"app": {"health": None, "pools": {
                r: {"endpoints": [f"127.0.0.1:{origin.port}"]} for r in ("east", "west")}}},
            "routes": [{"name": "writes", "match": {}, "service": "app", "deadline": "1s", "attempt_timeout": "300ms",
                        "retry": {"attempts": 2, "writes": "idempotency_key"}, "degrade": [{"spool": {"order_key": "x-lane"}}]}],
            "spool": {"path": os.path.join(folder, "spool"), "replay_rate": "5000/s"},
        }
        with open(os.path.join(folder, "evenkeel.yaml"), "w") as f:
            json.dump(config, f)

    def start(self):
        log = open(os.path.join(self.folder, "evenkeel.log"), "ab")
        self.process = subprocess.Popen([BIN, "run", "--config", os.path.join(self.folder, "evenkeel.yaml")], stdout=log, stderr=log)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.kills += 1

    def spool(self):
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        c.request("GET", "/v1/spool?limit=1")
        return json.loads(c.getresponse().read())


def writer(lane, writes, proxy, acknowledged, size, left):
    """One client of one lane: the next write only when this one is acknowledged, however often it must be sent."""
    c, fresh = None, True
    for n in range(writes):
        body = f"{n} ".ljust(size, "x")
        headers = {"Idempotency-Key": f"{lane}-{n}", "X-Lane": str(lane), "Authorization": f"lane {lane}"}
        while not left.is_set():
            try:
                c = c or http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
                c.request("POST", f"/lane/{lane}/{n}", body, headers)
                answer = c.getresponse()
                answer.read()
                if answer.status in (201, 202):
                    acknowledged.append((lane, n, answer.status, answer.getheader("Location")))
                    break
                fresh = False
            except OSError:
                pass
            except http.client.HTTPException:
                pass
            if c:
                c.close()
            c = None
            time.sleep(0.02)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--writes", type=int, default=10000)
    p.add_argument("--kills", type=int, default=50)
    p.add_argument("--lanes", type=int, default=100)
    p.add_argument("--size", type=int, default=1024)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--patience", type=float, default=300, help="seconds for everything to be applied")
    a = p.parse_args()
    dice, folder = random.Random(a.seed), tempfile.mkdtemp(prefix="ek-spool-kill-")
    origin = Origin()
    proxy = Proxy(folder, origin)
    proxy.start()
    acknowledged, stop, began = [], threading.Event(), time.time()
    clients = [threading.Thread(target=writer, args=(lane, a.writes // a.lanes, proxy, acknowledged, a.size, stop), daemon=True)
               for lane in range(a.lanes)]
    for c in clients:
        c.start()
    total = a.writes // a.lanes * a.lanes
    # Kills are spread over the writes: the next one comes when so many more were acknowledged, at a random moment after that.
    for k in range(a.kills):
        mark = total * (k + 1) // (a.kills + 2)
        limit = time.time() + 60
        while len(acknowledged) < mark and time.time() < limit:
            time.sleep(0.001)
        time.sleep(dice.random() * 0.05)
        proxy.kill()
        proxy.start()
    for c in clients:
        c.join()
    took = time.time() - began
    pending = proxy.spool()["pending"]
    print(f"{len(acknowledged)} writes acknowledged in {took:.1f} s, {proxy.kills} kills, {pending} wait in the spool")
    # Two more while it replays.
    origin.down = False
    limit, kills = time.time() + a.patience, 0
    while time.time() < limit:
        try:
            pending = proxy.spool()["pending"]
        except OSError:
            pending = -1
        if kills < 5 and pending > 0 and dice.random() < 0.3:
            proxy.kill()
            proxy.start()
            kills += 1
        if pending == 0:
            break
        time.sleep(0.1)
    failures = []
    if pending != 0:
        failures.append(f"{pending} writes still wait after {a.patience:.0f} s")
    for lane, n, status, _ in acknowledged:
        if f"{lane}-{n}" not in origin.seen:
            failures.append(f"lost: {lane}-{n}, acknowledged with {status}")
    for lane, order in origin.applied.items():
        if order != sorted(order):
            failures.append(f"order of lane {lane}: {order[:20]} …")
        if len(order) != len(set(order)):
            failures.append(f"applied twice in lane {lane}")
    if len(acknowledged) != total:
        failures.append(f"{len(acknowledged)} of {total} were acknowledged")
    proxy.process.terminate()
    proxy.process.wait()
    print(f"{len(origin.seen)} applied at the origin, {origin.repeats} repeats that it knew by their keys, {kills} more kills while replaying")
    for f in failures[:20]:
        print("FAILED", f)
    print(f"files in {folder}" if failures else "held: all acknowledged writes applied once, in order")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
