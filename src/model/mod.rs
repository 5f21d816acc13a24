//! The nouns of the program, shared by the side that senses and the side that steers.
//!
//! | noun | what it is | made by |
//! |---|---|---|
//! | [`topology::Topology`] | what the operator said, checked and complete | `config` |
//! | [`signal::Signal`] | what we heard | probes, cells, operators |
//! | [`view::View`] | what requests may know: one immutable picture | `sense::controller` |
//! | [`outcome::Outcome`] | what came of one attempt | `steer::classify` |
//! | [`event::Event`] + [`event::Cause`] | what we will remember | `sense::controller` |
//!
//! Nothing here waits, reads a clock, rolls a die, or writes. Time is a [`time::Moment`] handed in;
//! chance is a [`dice::Dice`] handed in.

pub mod count;
pub mod dice;
pub mod diff;
pub mod event;
pub mod fleet;
pub mod id;
pub mod outcome;
pub mod policy;
pub mod signal;
pub mod status;
pub mod time;
pub mod topology;
pub mod view;
