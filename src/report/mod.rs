//! Pure: from events to reports.
//!
//! | room | what it does |
//! |---|---|
//! | [`incident`] | events to incidents: what broke, how fast it was seen, when traffic had moved, when all was well |
//! | [`slo`] | objectives, burn rates, how long regions and fates were out |
//! | [`tell`] | an incident for people: one line, a page of text, Markdown for a post-mortem |
//! | [`toll`] | what an incident cost: requests by route, what each region carried |
//! | [`when`] | wall-clock time as a value |

pub mod incident;
pub mod slo;
pub mod tell;
pub mod toll;
pub mod when;

#[cfg(test)]
mod tests;
