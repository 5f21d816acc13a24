//! The live screen of `status --watch` and of the demo: the picture of the dashboard, in a terminal.
//!
//! ```text
//! feed (threads) --News--> Picture --draw--> terminal
//!                             ^
//! keys ------------Act--------+----Order--> admin API
//! ```
//!
//! Two threads fetch: one asks for status and metrics every [`feed::EVERY`] and at once when something happened, one listens to
//! the event stream. The screen itself never waits for the network: a proxy that hangs leaves the last picture standing, with
//! its age in the first line. [`Picture`] and the drawing know no terminal and no clock, so that a test can look at a screen.
//!
//! Orders ask before they act: a drain for its reason, everything else for Enter. A drain that the proxy refuses shows the
//! plan's words and can be forced from there. What the screen does not do: trip, reset and drills, which have commands.
//!
//! State is shown by a sign and a word, never by colour alone; under `NO_COLOR` there is none.

mod draw;
mod feed;
mod figures;
mod keys;
mod picture;

pub use feed::Faults;

use super::client::Admin;
use super::{Failure, Outcome, Verdict};
use crate::clock;
use keys::Act;
use picture::Picture;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use std::io::IsTerminal;
use std::time::Duration;

/// How long a key or a redraw may wait: ages on the screen grow by the second.
const BEAT: Duration = Duration::from_millis(100);

/// Whether there is a terminal that a screen can be drawn on.
pub fn possible() -> bool {
    let able = std::env::var_os("TERM").is_none_or(|t| !t.is_empty() && t != "dumb");
    able && std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Shows a proxy until the operator leaves. With `faults` the regions are simulated and can be broken from here.
pub fn run(admin: Admin, faults: Option<Faults>) -> Outcome {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut picture = Picture::new(clock::wall_now(), faults.as_ref().map(|f| f.about.clone()));
    let feed = feed::start(admin, faults).map_err(|e| Failure::new(format!("no thread: {e}"), "raise the limit of threads"))?;
    let mut terminal = ratatui::try_init().map_err(|e| Failure::new(format!("no screen: {e}"), "without a terminal: evenkeel status"))?;
    let mut live = || -> std::io::Result<()> {
        loop {
            while let Some(news) = feed.next() {
                picture.hear(news);
            }
            picture.now = clock::wall_now();
            terminal.draw(|frame| draw::draw(frame, &picture, colour))?;
            if !event::poll(BEAT)? {
                continue;
            }
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match keys::press(&mut picture, key) {
                Act::None => {}
                Act::Leave => return Ok(()),
                Act::Order(order) => feed.order(order),
            }
        }
    };
    let left = live();
    let restored = ratatui::try_restore();
    left.and(restored).map_err(|e| Failure::new(format!("the terminal: {e}"), "without a screen: evenkeel status"))?;
    Ok(Verdict::Good)
}

#[cfg(test)]
mod tests;
