//! Colours, where somebody can see them.

use std::fmt::Display;
use std::io::IsTerminal;

/// Whether a stream gets colours.
#[derive(Clone, Copy, Debug)]
pub struct Style(bool);

impl Style {
    /// On a terminal, unless `NO_COLOR` is set (no-color.org) or the terminal is dumb.
    pub fn of(stream: &impl IsTerminal) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self(stream.is_terminal() && !unwanted && std::env::var_os("TERM").is_none_or(|t| t != "dumb"))
    }
    /// None, wherever it goes.
    #[cfg(test)]
    pub fn none() -> Self {
        Self(false)
    }
    fn paint(self, code: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
    /// What is wrong.
    pub fn red(self, text: impl Display) -> String {
        self.paint("1;31", text)
    }
    /// What needs a look.
    pub fn yellow(self, text: impl Display) -> String {
        self.paint("1;33", text)
    }
    /// What is well.
    pub fn green(self, text: impl Display) -> String {
        self.paint("32", text)
    }
    /// What matters.
    pub fn bold(self, text: impl Display) -> String {
        self.paint("1", text)
    }
    /// What is aside.
    pub fn dim(self, text: impl Display) -> String {
        self.paint("2", text)
    }
}
