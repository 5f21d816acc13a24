//! What the fleet's view of a pool means here. Pure: votes and our own eyes in, [`Advice`] out.
//!
//! **A majority** is more than half of the votes cast, ours among them, of at least two, cast by at least half of the
//! live edges, who are more than half of the edges known of ([`Book::quorum`](super::book::Book::quorum)). Less than that
//! is no verdict: each edge acts alone.
//!
//! | verdicts | majority says down | majority says well |
//! |---|---|---|
//! | `off` | nothing | nothing |
//! | `advise` | our own suspicion is confirmed at once, if nothing came back well since it began | an experiment of ours ends |
//! | `follow` | the pool is taken out, whatever we see, if another one is open | soft evidence of ours (wrong answers) moves nothing |
//!
//! Why `follow` does not put requests on a path that is dead *here*: a majority can be right about the region and know nothing
//! of our way to it. Hard evidence (no connection, silence) always moves our own traffic.
//!
//! In `advise` our own doubt counts as a vote for down: it is only asked where we doubt. A success that is newer than the
//! doubt ends the question, whatever the others say.
//!
//! **Alone.** Who sees a pool down that nobody else sees down and hardly anybody doubts (one in [`DOUBTS`]: in a large fleet somebody
//! always has a hiccup), while a majority sees it well, has a broken way to it
//! rather than a broken pool. That moves the edge's own traffic like any other fault and is told ([`is_alone`]).

use super::book::Votes;
use crate::model::fleet::Opinion;
use crate::model::policy::Verdicts;

/// One passing doubt among so many who see it well is a hiccup.
pub const DOUBTS: u32 = 10;

/// What a majority of those who can tell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Majority {
    /// No majority, or too few to speak of one.
    None,
    /// Down.
    Down,
    /// Well.
    Well,
}

/// Our own evidence on a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// In sum.
    pub opinion: Opinion,
    /// We doubt it, and nothing came back well since the doubt began.
    pub doubts: bool,
    /// The doubt is an experiment on wrong answers: it could end either way.
    pub experiment: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Go by our own eyes.
    Own,
    /// Our suspicion is right: trip.
    Confirm,
    /// Our experiment may end: it is not the pool.
    Calm,
    /// Take it out because the majority says so.
    Follow,
    /// The majority sees it well: soft evidence moves nothing.
    Hold,
}

/// What the votes say. `quorum`: the live ones are more than half of those known of.
pub fn majority(v: &Votes, quorum: bool) -> Majority {
    let cast = v.cast();
    if !quorum || cast < 2 || 2 * cast < v.live {
        return Majority::None;
    }
    if 2 * v.down > cast {
        Majority::Down
    } else if 2 * v.well > cast {
        Majority::Well
    } else {
        Majority::None
    }
}

/// What the others' votes mean for us.
pub fn advise(mode: Verdicts, others: &Votes, quorum: bool, own: Own) -> Advice {
    match mode {
        Verdicts::Off => Advice::Own,
        Verdicts::Advise if own.doubts && others.down > 0 && majority(&others.with(Opinion::Down), quorum) == Majority::Down => {
            Advice::Confirm
        }
        Verdicts::Advise if own.experiment && majority(&others.with(own.opinion), quorum) == Majority::Well => Advice::Calm,
        Verdicts::Advise => Advice::Own,
        Verdicts::Follow => match majority(&others.with(own.opinion), quorum) {
            Majority::Down => Advice::Follow,
            Majority::Well => Advice::Hold,
            Majority::None if own.doubts && others.down > 0 && majority(&others.with(Opinion::Down), quorum) == Majority::Down => {
                Advice::Confirm
            }
            Majority::None => Advice::Own,
        },
    }
}

/// Whether we alone see it down: hardly anybody else even doubts it, and a majority sees it well.
pub fn is_alone(others: &Votes, quorum: bool, own: Opinion) -> bool {
    let few = others.down == 0 && DOUBTS * others.suspect <= others.well;
    own == Opinion::Down && others.well >= 2 && few && majority(&others.with(own), quorum) == Majority::Well
}

#[cfg(test)]
mod tests;
