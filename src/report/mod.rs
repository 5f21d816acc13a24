//! Pure: from events to reports.
//!
//! | room | what it does |
//! |---|---|
//! | [`incident`] | events to incidents: what broke, how fast it was seen, when traffic had moved, when all was well |
//! | [`tell`] | an incident for people: one line, a page of text, Markdown for a post-mortem |
//! | [`when`] | wall-clock time as a value |

pub mod incident;
pub mod tell;
pub mod when;

#[cfg(test)]
mod tests;
