use super::super::entry::{Write, mark};
use super::*;

fn queue() -> Queue {
    Queue::new(1e6, Dice::new(1))
}
fn entry(seq: u64, order: &str) -> Entry {
    let write = Write {
        route: "r".into(),
        method: "POST".into(),
        target: "t.test/".into(),
        scope: mark([format!("scope {seq}").as_bytes()]),
        fingerprint: mark([]),
        order: mark([order.as_bytes()]),
        residency: None,
        status: 202,
        max_age_ms: 10_000,
        client: "192.0.2.1".parse().unwrap(),
        trusted: false,
        https: false,
        request: vec![0; 1000],
    };
    Entry::of(&write, seq, format!("{seq:016x}{:016x}", 0), 1_000)
}
fn settled(e: &Entry, state: State) -> Entry {
    Entry { state, settled_at: 2_000, ..e.clone() }
}
fn at(ms: u64) -> Moment {
    Moment::ms(1_000 + ms)
}
/// Everything that may go now.
fn all(q: &mut Queue, now: Moment) -> Vec<u64> {
    let mut seqs = vec![];
    while let Next::Go(seq) = q.next(now) {
        seqs.push(seq);
    }
    seqs
}

#[test]
fn one_lane_goes_one_by_one_and_lanes_go_beside_each_other() {
    let mut q = queue();
    let entries: Vec<Entry> = [(1, "a"), (2, "a"), (3, "b"), (4, "a")].map(|(s, o)| entry(s, o)).into();
    entries.iter().for_each(|e| q.add(e, at(0)));
    assert_eq!(all(&mut q, at(0)), [1, 3]);
    assert!(q.waits(&mark([&b"a"[..]])) && !q.waits(&mark([&b"c"[..]])));
    for (seq, next) in [(1, vec![2]), (2, vec![4]), (4, vec![])] {
        assert!(q.done(seq, &Verdict::Applied(201), at(1)));
        q.settle(&settled(&entries[seq as usize - 1], State::Applied), at(1));
        assert_eq!(all(&mut q, at(1)), next);
    }
    assert!(!q.waits(&mark([&b"a"[..]])), "a lane that is through is gone");
    assert_eq!((q.count(State::Pending), q.count(State::Applied), q.under_way()), (1, 3, 1));
}

#[test]
fn what_a_backend_cannot_take_now_holds_its_own_lane_up() {
    let mut q = queue();
    [(1, "a"), (2, "a"), (3, "b")].iter().for_each(|(s, o)| q.add(&entry(*s, o), at(0)));
    assert_eq!(all(&mut q, at(0)), [1, 3]);
    assert!(!q.done(1, &Verdict::Later(503), at(0)));
    let Next::Wait(until) = q.next(at(0)) else { panic!("not before its time") };
    assert!(until >= at(800) && until <= at(1_200), "{until:?}");
    assert_eq!(q.next(until), Next::Go(1), "the head, not what came later");
    q.done(1, &Verdict::Later(503), until);
    let Next::Wait(second) = q.next(until) else { panic!("not before its time") };
    assert!(second.since(until) >= Duration::from_millis(1_600));
}

#[test]
fn where_nobody_can_be_asked_one_looks_for_all() {
    let mut q = queue();
    (1..=5).for_each(|s| q.add(&entry(s, &format!("lane {s}")), at(0)));
    assert_eq!(all(&mut q, at(0)).len(), 5);
    for seq in 1..=5 {
        assert!(!q.done(seq, &Verdict::Unreachable("no region".into()), at(10)));
    }
    let Next::Wait(until) = q.next(at(10)) else { panic!("the gate is closed") };
    let first = all(&mut q, until);
    assert_eq!(first.len(), 1, "one goes ahead");
    q.done(first[0], &Verdict::Unreachable("no region".into()), until);
    let Next::Wait(again) = q.next(until) else { panic!("the gate is closed again") };
    assert!(again > until);
    let one = all(&mut q, again);
    q.done(one[0], &Verdict::Later(503), again);
    assert_eq!(all(&mut q, again).len(), 4, "an answer of a backend opens the gate for the others");
}

#[test]
fn the_rate_holds() {
    let mut q = Queue::new(50.0, Dice::new(1));
    (1..=60).for_each(|s| q.add(&entry(s, &format!("lane {s}")), at(0)));
    let mut gone = 0;
    for ms in 0..500 {
        gone += all(&mut q, at(ms)).len();
    }
    assert!((25..=31).contains(&gone), "{gone} in half a second at 50/s");
}

#[test]
fn times_end_and_repeats_are_known_by_their_scope() {
    let mut q = queue();
    let e = entry(1, "a");
    q.add(&e, at(0));
    assert_eq!((q.by_scope(&e.scope), q.by_id(&e.id)), (Some(1), Some(1)));
    assert_eq!((q.expired(10_999, 9), q.expired(11_000, 9)), (vec![], vec![1]));
    assert_eq!(all(&mut q, at(0)), [1]);
    assert!(q.expired(11_000, 9).is_empty(), "what is under way comes to its end first");
    assert!(!q.done(1, &Verdict::Later(503), at(1)));
    q.settle(&settled(&e, State::Expired), at(1));
    assert_eq!(q.by_scope(&e.scope), None, "it may be tried anew");
    assert!(q.forgotten(2_000 + 7 * DAY - 1, 9).is_empty());
    assert_eq!(q.forgotten(2_000 + 7 * DAY, 9), [1]);
    q.settle(&Entry { state: State::Pending, expires_at: 99_000, ..e.clone() }, at(2));
    assert_eq!(all(&mut q, at(2)), [1], "an operator sent it on its way again");
    q.done(1, &Verdict::Refused(401), at(3));
    q.settle(&settled(&e, State::Refused), at(3));
    q.forget(1);
    assert!(q.is_empty() && q.bytes() == 0 && q.by_id(&e.id).is_none());
}

#[test]
fn applied_writes_make_room_and_waiting_ones_do_not() {
    let mut q = queue();
    let (a, b) = (entry(1, "a"), entry(2, "b"));
    q.add(&settled(&a, State::Applied), at(0));
    q.add(&b, at(0));
    let both = q.bytes();
    assert_eq!(q.room(0, both), Some(vec![]));
    assert_eq!(q.room(1_000, both), Some(vec![1]));
    assert_eq!(q.room(1_025, both), None, "the one that waits stays");
}
