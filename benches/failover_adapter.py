"""Evenkeel in the failover exam: one config for all scenarios (weights only for `reload`).
In the exam's folder: EVENKEEL_BIN=... ./failover.py --proxy evenkeel --adapter THIS --scenario all"""
import json, os, signal
from peers.base import Base

BIN = os.environ.get("EVENKEEL_BIN", "evenkeel")


class Peer(Base):
    name = "evenkeel"
    upgrade_kind = "a second process takes over the sockets"

    def config(self):
        tiers = self.weights is None
        regions = {r.name: {"jurisdiction": "us" if r.us else "eu",
                            "weight": 100 if tiers else self.weights[r.name],
                            "tier": i + 1 if tiers else 1} for i, r in enumerate(self.regions)}
        pools = {r.name: {"endpoints": [f"{ip}:{port}" for _, ip, port in r.origins], "max_inflight": r.max_inflight}
                 for r in self.regions}
        guards = [{"json": "/views", "reject": "zero_after_nonzero"}, {"json": "/likes", "reject": "zero_after_nonzero"}]
        stale = [{"stale": {"max_age": "1h"}}]
        read = {"service": "app", "deadline": "1800ms", "attempt_timeout": "450ms", "hedge": {"after": "p95", "budget": "5%"},
                "guards": guards}
        kinds = [
            ("feed", {"path_prefix": "/feed"}, dict(read, priority="critical", degrade=stale)),
            ("stats", {"path_prefix": "/video/"}, dict(read, priority="normal", degrade=stale)),
            ("recommendations", {"path_prefix": "/recommendations"}, dict(read, priority="sheddable", degrade=stale)),
            ("upload", {"path_prefix": "/"}, {"service": "app", "priority": "critical", "deadline": "1900ms",
                                             "retry": {"attempts": 3, "writes": "incomplete"}}),
        ]
        routes = []
        for us in (True, False):            # the same routes twice: US-only by header, then anywhere
            for name, match, policy in kinds:
                route = {"name": name + ("-us" if us else ""), "match": dict(match), **policy}
                if us:
                    route["match"]["headers"] = {"x-residency": "us"}
                    route["residency"] = ["us"]
                routes.append(route)
        return {
            "version": 1, "edge": {"jurisdiction": "us", "threads": 2, "state_dir": self.path("state")},
            "listeners": [{"address": "%s:%d" % self.lab.LISTEN}],
            "admin": {"address": "127.0.0.1:9900"},
            "regions": regions,
            "services": {"app": {"pools": pools, "health": {"path": self.lab.HEALTH}}},
            "routes": routes,
            "spool": {"path": self.path("spool")}, "journal": {"path": self.path("journal")},
        }

    def write_config(self):
        self.put("evenkeel.yaml", json.dumps(self.config(), indent=1))      # JSON is YAML

    def start(self, *extra):
        self.proc = self.lab.spawn([BIN, "run", "--config", self.path("evenkeel.yaml"), *extra], log="evenkeel.log")

    def upgrade(self):
        """The old process hands its sockets over, drains and leaves by itself."""
        self.start("--takeover")

    def reload(self, weights):
        self.weights = weights
        self.write_config()
        os.kill(self.proc.pid, signal.SIGHUP)
