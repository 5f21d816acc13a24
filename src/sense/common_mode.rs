//! Is it this pool, or everybody, or ourselves? A bad request, a bad deploy or a shared database fails
//! everywhere at once; moving traffic then only spreads it. So a pool trips only in *contrast*: while some
//! other region does markedly better on the same service.
//!
//! The evidence, best first:
//!
//! 1. the same request failed here and in another region too (`confirmed`), mostly: the request is at fault;
//! 2. another region's own answers in the same time: five, with at most half of this one's failure ratio. Where
//!    the evidence is soft (statuses), the difference must be beyond chance as well ([`SURE`]): pools are compared
//!    every 10 ms, and of two that fail four times in five one soon looks good on five answers. Requests that failed
//!    here and then succeeded elsewhere (`contradicted`) lower that bar ([`TOLD`]): they are the same requests;
//! 3. where nobody else has live traffic, the contradicted requests, and then probes. These can speak on *hard* evidence
//!    (nothing answers here, there something does), or when they fail here and pass there. On soft evidence with probes
//!    that pass here too they know nothing of the fault.
//!
//! Without an answer ([`Contrast::Unknown`]) the controller makes an experiment: it avoids the pool for a
//! moment, which brings live evidence from elsewhere.

use super::window::Counts;

/// Contradicted and confirmed failures that decide.
const RETOLD: u32 = 3;
/// Judged attempts without which another region's answers say nothing.
const JUDGED: u32 = 5;

/// How this pool compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contrast {
    /// Somebody else does markedly better.
    Better,
    /// Nobody does, or nobody else is there.
    AsBad,
    /// Nobody knows yet.
    Unknown,
}

/// What speaks against a pool, by how much of it must be beyond chance to tell it from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing answers: connections fail. No matter of chance.
    Gone,
    /// Some requests get no answer in time.
    Hangs,
    /// Answers are wrong.
    Wrong,
}

/// Another pool of the service that could take the work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Other {
    /// What its live attempts came to in the time in question (never before this one's trouble began, or
    /// its healthy past would pass for contrast when both fail together).
    pub recent: Counts,
    /// It is quiet itself.
    pub quiet: bool,
    /// What its probes said since this one's trouble began; `None`: nothing yet.
    pub probes: Option<bool>,
}

/// Standard errors that a difference of two failure ratios must be wide. At 3 a common fault of 80 % trips some pool
/// within a minute at 20 requests a second and pool; at 4 it takes days.
const SURE: f64 = 4.0;
/// The same for hanging requests, of which few are many (4 %) and every second counts.
const SURE_HANGS: f64 = 3.0;
/// Where requests that failed here succeed elsewhere at least this many times as often as not.
const TOLD: (u32, f64) = (4, 2.0);

/// Compare a pool with the others. `probes`: whether its own pass.
pub fn contrast(mine: &Counts, evidence: Evidence, probes: Option<bool>, others: &[Other]) -> Contrast {
    let hard = evidence != Evidence::Wrong;
    if others.is_empty() {
        return Contrast::AsBad;
    }
    let retold = mine.contradicted + mine.confirmed >= RETOLD;
    if retold && mine.confirmed >= mine.contradicted {
        return Contrast::AsBad;
    }
    let told = retold && mine.contradicted >= TOLD.0 * mine.confirmed;
    let sure = match evidence {
        Evidence::Gone => 0.0,
        Evidence::Hangs => SURE_HANGS,
        Evidence::Wrong => SURE,
    };
    let sure = if told { sure.min(TOLD.1) } else { sure };
    let mut live = others.iter().filter(|o| o.recent.judged() >= JUDGED || o.quiet).peekable();
    if live.peek().is_some() {
        let half = |o: &&Other| !o.quiet && o.recent.bad_ratio() <= mine.bad_ratio() / 2.0;
        let (mut better, mut perhaps) = (false, false);
        for o in live.filter(half) {
            let beyond_chance = sure == 0.0 || errors(mine, &o.recent) >= sure;
            better |= beyond_chance;
            perhaps |= !beyond_chance;
        }
        let untried = others.iter().any(|o| !o.quiet && o.recent.judged() < JUDGED);
        return match (better, untried || perhaps) {
            (true, _) => Contrast::Better,
            (false, true) => Contrast::Unknown,
            (false, false) => Contrast::AsBad,
        };
    }
    if told || (hard || probes == Some(false)) && others.iter().any(|o| o.probes == Some(true)) {
        return Contrast::Better;
    }
    if others.iter().all(|o| o.probes == Some(false)) {
        return Contrast::AsBad;
    }
    Contrast::Unknown
}

/// By how many standard errors one failure ratio is above another (the two-proportion z test).
fn errors(mine: &Counts, other: &Counts) -> f64 {
    let (n, m) = (f64::from(mine.judged()), f64::from(other.judged()));
    let (p, q) = (mine.bad_ratio(), other.bad_ratio());
    let pooled = (p * n + q * m) / (n + m);
    let error = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
    if error > 0.0 { (p - q) / error } else { 0.0 }
}

/// Whether a silent pool stands alone: somebody else was heard since it went quiet.
pub fn alone(others: &[Other]) -> bool {
    others.iter().any(|o| !o.quiet && (o.recent.ok > 0 || o.probes == Some(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ok: u32, status: u32) -> Counts {
        Counts { ok, status, ..Default::default() }
    }
    fn live(ok: u32, status: u32) -> Other {
        Other { recent: counts(ok, status), ..Default::default() }
    }

    #[test]
    fn nobody_else_is_as_bad() {
        assert_eq!(contrast(&counts(0, 100), Evidence::Gone, None, &[]), Contrast::AsBad);
    }

    #[test]
    fn the_same_request_elsewhere_is_the_best_witness() {
        let with = |contradicted, confirmed| Counts { ok: 10, status: 10, contradicted, confirmed, ..Default::default() };
        assert_eq!(contrast(&with(2, 2), Evidence::Wrong, None, &[live(100, 0)]), Contrast::AsBad, "the request is at fault");
        assert_eq!(contrast(&with(3, 0), Evidence::Wrong, None, &[live(8, 0)]), Contrast::Better);
        assert_eq!(contrast(&with(2, 0), Evidence::Wrong, None, &[live(8, 0)]), Contrast::Unknown, "two are too few to hear");
        assert_eq!(contrast(&with(3, 0), Evidence::Wrong, None, &[live(0, 100)]), Contrast::AsBad, "but nobody does better by far");
        assert_eq!(contrast(&with(3, 0), Evidence::Wrong, None, &[live(1, 0)]), Contrast::Better, "nobody else has enough to say");
    }

    #[test]
    fn another_region_must_be_twice_as_good() {
        assert_eq!(contrast(&counts(100, 100), Evidence::Wrong, None, &[live(75, 25)]), Contrast::Better);
        assert_eq!(contrast(&counts(100, 100), Evidence::Wrong, None, &[live(74, 26)]), Contrast::AsBad);
        assert_eq!(contrast(&counts(0, 20), Evidence::Wrong, None, &[live(4, 0)]), Contrast::Unknown, "four are too few");
        assert_eq!(contrast(&counts(0, 20), Evidence::Wrong, None, &[live(5, 0)]), Contrast::Better);
    }

    #[test]
    fn a_soft_difference_must_be_beyond_chance() {
        assert_eq!(contrast(&counts(3, 17), Evidence::Wrong, None, &[live(6, 2)]), Contrast::Unknown, "3.1 standard errors");
        assert_eq!(contrast(&counts(10, 10), Evidence::Wrong, None, &[live(22, 0)]), Contrast::Unknown, "3.8");
        assert_eq!(contrast(&counts(10, 10), Evidence::Wrong, None, &[live(26, 0)]), Contrast::Better, "4.1");
        assert_eq!(contrast(&counts(10, 10), Evidence::Gone, None, &[live(5, 0)]), Contrast::Better, "silence is no matter of chance");
        let hangs = |ok, timeout| Counts { ok, timeout, ..Default::default() };
        assert_eq!(contrast(&hangs(95, 5), Evidence::Hangs, None, &[live(160, 0)]), Contrast::Unknown, "2.9");
        assert_eq!(contrast(&hangs(95, 5), Evidence::Hangs, None, &[live(190, 0)]), Contrast::Better, "3.1");
    }

    #[test]
    fn probes_speak_only_of_what_they_can_see() {
        let idle = |probes| Other { probes, ..Default::default() };
        let soft = counts(10, 10);
        assert_eq!(contrast(&soft, Evidence::Wrong, Some(true), &[idle(Some(true))]), Contrast::Unknown);
        assert_eq!(contrast(&soft, Evidence::Wrong, Some(false), &[idle(Some(true))]), Contrast::Better);
        assert_eq!(contrast(&soft, Evidence::Gone, Some(true), &[idle(Some(true))]), Contrast::Better);
        assert_eq!(contrast(&soft, Evidence::Gone, None, &[idle(Some(false))]), Contrast::AsBad);
    }

    #[test]
    fn silence_is_only_theirs_when_somebody_else_is_heard() {
        let quiet = Other { quiet: true, recent: counts(9, 0), probes: Some(true) };
        assert!(!alone(&[quiet]));
        assert!(!alone(&[Other::default()]));
        assert!(alone(&[quiet, live(1, 0)]));
        assert!(alone(&[Other { probes: Some(true), ..Default::default() }]));
    }
}
