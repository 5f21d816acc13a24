use super::*;

const TICK: u64 = 100;

/// A drill under load: so many requests per tick, and what part of them fails, is slow, is shed.
struct World {
    drill: Drill,
    now: u64,
    total: Reading,
    around: Around,
}

fn terms(guards: &[&str]) -> Terms {
    Terms {
        region: "east".into(),
        over: Duration::from_secs(10),
        hold: Duration::from_secs(60),
        guards: guards.iter().map(|g| g.parse().unwrap()).collect(),
        lease: None,
    }
}

impl World {
    fn new(terms: Terms) -> Self {
        let around = Around { ours: true, ..Around::default() };
        let mut total = Reading::default();
        total.count.route = "home".into();
        total.count.failed = 1_000; // before the drill: none of its business
        Self { drill: Drill::begin(terms, Moment::ms(1000)), now: 1000, total, around }
    }
    fn tick(&mut self, ok: u64, failed: u64, shed: u64, stale: u64, ms: u64) -> Act {
        self.now += TICK;
        self.total.count.ok += ok;
        self.total.count.failed += failed;
        self.total.count.shed += shed;
        self.total.count.stale += stale;
        (0..ok + failed + shed + stale).for_each(|_| self.total.times.add(ms * 1000));
        self.drill.step(Moment::ms(self.now), vec![self.total.clone()], &self.around)
    }
    /// Ticks until something is to be done; how many it took.
    fn until_act(&mut self, most: u64, each: (u64, u64, u64, u64, u64)) -> (u64, Act) {
        for n in 1..=most {
            let act = self.tick(each.0, each.1, each.2, each.3, each.4);
            if act != Act::None {
                return (n, act);
            }
        }
        (most, Act::None)
    }
}

const GOOD: (u64, u64, u64, u64, u64) = (50, 0, 0, 0, 20);
const BACK_AT_ONCE: Act = Act::Restore { at_once: true };

#[test]
fn it_drains_holds_and_passes() {
    let mut w = World::new(terms(&["success<99.5%", "p99>300ms", "shed>1%", "degraded>1%"]));
    assert_eq!(w.until_act(1000, GOOD), (100, Act::Held));
    assert_eq!(w.drill.stage(), DrillStage::Holding);
    assert_eq!(w.until_act(1000, GOOD), (600, Act::Restore { at_once: false }));
    assert_eq!(w.drill.stage(), DrillStage::Passed);
    assert_eq!(w.drill.results()[0].requests, 699 * 50, "what came before is not counted");
    assert!(w.drill.what().contains("the worst route was home: 100.00% of"), "{}", w.drill.what());
    assert_eq!(w.tick(0, 50, 0, 0, 20), Act::None, "over is over");
}

#[test]
fn each_guard_is_crossed_within_a_second_and_not_by_one_request() {
    for (guard, bad) in [
        ("success<99.5%", (45, 5, 0, 0, 20)),
        ("p99>300ms", (50, 0, 0, 0, 500)),
        ("shed>1%", (45, 0, 5, 0, 20)),
        ("degraded>1%", (45, 0, 0, 5, 20)),
        ("home:success<99.5%", (45, 5, 0, 0, 20)),
    ] {
        let mut w = World::new(terms(&[guard]));
        assert_eq!(w.until_act(50, GOOD).1, Act::None);
        assert_eq!(w.tick(49, u64::from(guard.contains("success")), 0, 0, 20), Act::None, "{guard}: one request");
        let (ticks, act) = w.until_act(20, bad);
        assert!(ticks <= 5 && act == BACK_AT_ONCE, "{guard}: {ticks}");
        assert!(w.drill.what().contains(guard.trim_start_matches("home:")) && w.drill.what().contains("route home"), "{}", w.drill.what());
        let mut w = World::new(terms(&[&guard.replace("home:", "").replace("success", "other:success").replace("p99", "other:p99")]));
        let (_, act) = w.until_act(20, bad);
        assert_eq!(act == Act::None, guard.contains("success") || guard.contains("p99"), "{guard} of another route");
    }
}

#[test]
fn little_traffic_is_judged_over_ten_seconds() {
    // Two a tick, every twentieth fails: 5 % of 20 a second.
    let mut w = World::new(terms(&["success<96%"]));
    let mut ticks = 0;
    loop {
        ticks += 1;
        let failed = u64::from(ticks % 10 == 0);
        if w.tick(2 - failed, failed, 0, 0, 20) != Act::None {
            break;
        }
        assert!(ticks < 90, "not seen");
    }
    assert!(ticks >= 10);
}

#[test]
fn whoever_runs_it_must_be_there() {
    let mut w = World::new(Terms { lease: Some(Duration::from_secs(2)), ..terms(&[]) });
    for _ in 0..10 {
        assert_eq!(w.until_act(5, GOOD).1, Act::None);
        w.drill.renew(Moment::ms(w.now));
    }
    assert_eq!(w.until_act(100, GOOD), (21, BACK_AT_ONCE));
    assert!(w.drill.what().contains("not been heard of for 2s"), "{}", w.drill.what());
}

#[test]
fn what_else_ends_it() {
    type Change = fn(&mut Around);
    let cases: [(Change, &str); 4] = [
        (|a| a.tripped = vec!["east".into(), "west".into()], "region west tripped"),
        (|a| a.edge_suspect = true, "went bad together"),
        (|a| a.ours = false, "somebody else"),
        (|a| a.leaving = true, "shutting down"),
    ];
    for (change, says) in cases {
        let mut w = World::new(terms(&[]));
        assert_eq!(w.until_act(5, GOOD).1, Act::None);
        change(&mut w.around);
        assert_eq!(w.until_act(5, GOOD), (1, BACK_AT_ONCE), "{says}");
        assert!(w.drill.what().contains(says), "{}", w.drill.what());
    }
    let mut w = World::new(terms(&[]));
    w.around.tripped = vec!["east".into()];
    assert_eq!(w.until_act(5, GOOD).1, Act::None, "the region that is away may be what it likes");
    assert_eq!(w.drill.abort("Ctrl-C"), BACK_AT_ONCE);
    assert_eq!(w.drill.abort("again"), Act::None);
}

#[test]
fn guards_are_read_strictly() {
    for good in ["success<99.5%", "success < 0.995", "p99>300ms", "p99>1.5s", "shed>0%", "a:b:degraded>2%"] {
        good.parse::<Guard>().unwrap();
    }
    for (bad, says) in [
        ("success>99%", "while all is well"),
        ("p99<1s", "while all is well"),
        ("latency>1s", "no guard"),
        ("p99>300", "no guard"),
        ("success<150%", "no guard"),
        ("success", "no guard"),
        ("", "no guard"),
    ] {
        assert!(bad.parse::<Guard>().unwrap_err().contains(says), "{bad}");
    }
}
