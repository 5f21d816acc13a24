//! Is it this pool, or everybody, or ourselves? A bad request, a bad deploy or a shared database fails
//! everywhere at once; moving traffic then only spreads it. So a pool trips only in *contrast*: while some
//! other region does markedly better on the same service.
//!
//! The evidence, best first:
//!
//! 1. the same request failed here and then succeeded elsewhere (`contradicted`), or failed there as well
//!    (`confirmed`): three of them, and the majority decides;
//! 2. another region's own recent answers: five, with at most half of this one's failure ratio;
//! 3. where nobody else has live traffic, probes. They can speak on *hard* evidence (nothing answers here,
//!    there something does), or when they fail here and pass there. On soft evidence with probes that pass here
//!    too they know nothing of the fault.
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

/// Compare a pool with the others. `hard`: the evidence against it is that nothing answers;
/// `probes`: whether its own pass.
pub fn contrast(mine: &Counts, hard: bool, probes: Option<bool>, others: &[Other]) -> Contrast {
    if others.is_empty() {
        return Contrast::AsBad;
    }
    if mine.contradicted + mine.confirmed >= RETOLD {
        return if mine.contradicted > mine.confirmed { Contrast::Better } else { Contrast::AsBad };
    }
    let mut live = others.iter().filter(|o| o.recent.judged() >= JUDGED || o.quiet).peekable();
    if live.peek().is_some() {
        let better = live.any(|o| !o.quiet && o.recent.bad_ratio() <= mine.bad_ratio() / 2.0);
        let untried = others.iter().any(|o| !o.quiet && o.recent.judged() < JUDGED);
        return match (better, untried) {
            (true, _) => Contrast::Better,
            (false, true) => Contrast::Unknown,
            (false, false) => Contrast::AsBad,
        };
    }
    if (hard || probes == Some(false)) && others.iter().any(|o| o.probes == Some(true)) {
        return Contrast::Better;
    }
    if others.iter().all(|o| o.probes == Some(false)) {
        return Contrast::AsBad;
    }
    Contrast::Unknown
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
        assert_eq!(contrast(&counts(0, 100), true, None, &[]), Contrast::AsBad);
    }

    #[test]
    fn the_same_request_elsewhere_is_the_best_witness() {
        let with = |contradicted, confirmed| Counts { status: 50, contradicted, confirmed, ..Default::default() };
        let elsewhere = [live(0, 100)];
        assert_eq!(contrast(&with(3, 0), false, None, &elsewhere), Contrast::Better);
        assert_eq!(contrast(&with(2, 0), false, None, &elsewhere), Contrast::AsBad, "two are too few to hear");
        assert_eq!(contrast(&with(2, 2), false, None, &[live(100, 0)]), Contrast::AsBad);
    }

    #[test]
    fn another_region_must_be_twice_as_good() {
        assert_eq!(contrast(&counts(10, 10), false, None, &[live(75, 25)]), Contrast::Better);
        assert_eq!(contrast(&counts(10, 10), false, None, &[live(74, 26)]), Contrast::AsBad);
        assert_eq!(contrast(&counts(10, 10), false, None, &[live(4, 0)]), Contrast::Unknown, "four are too few");
        assert_eq!(contrast(&counts(10, 10), false, None, &[live(5, 0)]), Contrast::Better);
    }

    #[test]
    fn probes_speak_only_of_what_they_can_see() {
        let idle = |probes| Other { probes, ..Default::default() };
        let soft = counts(10, 10);
        assert_eq!(contrast(&soft, false, Some(true), &[idle(Some(true))]), Contrast::Unknown);
        assert_eq!(contrast(&soft, false, Some(false), &[idle(Some(true))]), Contrast::Better);
        assert_eq!(contrast(&soft, true, Some(true), &[idle(Some(true))]), Contrast::Better);
        assert_eq!(contrast(&soft, true, None, &[idle(Some(false))]), Contrast::AsBad);
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
