//! No metastable state: once the trigger is gone, goodput returns to normal within a bounded time without help, however
//! often clients ask again, and however cold what comes back is.

use super::checks;
use super::fixture;
use evenkeel::model::id::*;
use evenkeel::model::time::Duration;
use evenkeel::whatif::world::BEGIN;
use evenkeel::whatif::{Fault, Power, Script, Target, Trace, What, play};

/// Within this time of the trigger's end everything is as before it. The servers themselves are busy with what piled up, abandoned or
/// not, for the first 25 s of it; then the last ejections and the ramp have to run out.
const BOUND: Duration = Duration::from_secs(90);
const TRIGGER: (u64, u64) = (20, 40);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Two regions at half of what they can do; clients that ask again at once and threefold.
fn storm(seed: u64, faults: &[(Target, What)]) -> Script {
    let mut script = fixture::two(seed, secs(180), 200.0);
    script.sites.iter_mut().for_each(|s| s.power = Power::Flow(100.0));
    for l in &mut script.loads {
        (l.resend, l.resend_after) = (3, Duration::from_millis(20));
    }
    let (at, until) = (secs(TRIGGER.0), secs(TRIGGER.1));
    script.faults = faults.iter().map(|(target, what)| Fault { at, lasting: until - at, target: *target, what: *what }).collect();
    script
}

/// Good answers as a part of what ended in this stretch.
fn goodput(trace: &Trace, from: Duration, to: Duration) -> f64 {
    let all: Vec<bool> = trace.fates().filter(|f| f.0 >= BEGIN + from && f.0 < BEGIN + to).map(|f| f.2.good()).collect();
    all.iter().filter(|good| **good).count() as f64 / all.len().max(1) as f64
}

#[test]
fn goodput_returns_once_the_trigger_is_gone() {
    let (everywhere, east, west) = (Target::Everywhere, Target::Region(RegionIx(0)), Target::Region(RegionIx(1)));
    let triggers: [&[(Target, What)]; 7] = [
        &[(everywhere, What::Workers(0.05))],
        &[(everywhere, What::Slow(20.0))],
        &[(everywhere, What::Burst(6.0))],
        &[(everywhere, What::Hang(0.4))],
        &[(everywhere, What::Kill)],
        &[(east, What::Kill), (west, What::Workers(0.5))],
        &[(east, What::Blackhole), (west, What::Cold(30.0))],
    ];
    let mut broken = Vec::new();
    for (i, faults) in triggers.iter().enumerate() {
        for seed in 0..3 {
            let script = storm(100 * seed + i as u64, faults);
            let trace = play(&script);
            let rules = checks::all(&script, &trace);
            assert!(rules.is_empty(), "{faults:?} seed {}: {:#?}", script.seed, &rules[..rules.len().min(3)]);
            let (before, after) = (goodput(&trace, secs(5), secs(TRIGGER.0)), goodput(&trace, secs(TRIGGER.1) + BOUND, secs(180)));
            if before < 0.999 || after < 0.995 {
                broken.push(format!(
                    "{faults:?} seed {}: {before:.4} good before, {after:.4} after\n{}",
                    script.seed,
                    checks::story(&trace)
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{} worlds stay down:\n{}", broken.len(), broken.join("\n\n"));
}
