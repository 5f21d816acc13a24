//! The decision core in a modelled world: random faults by seed, and checkers that hold the invariants of ARCHITECTURE.md.

mod checks;
mod fixture;
mod metastable;
mod scenarios;
mod schedule;
