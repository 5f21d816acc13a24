//! Keys: what each does, as a function of the picture.

use super::feed::Order;
use super::picture::{Asking, Picture};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A change of the picture at most.
    None,
    /// To the admin API.
    Order(Order),
    /// Back to the shell.
    Leave,
}

/// What ails a simulated region, by key.
pub const FAULTS: [(char, &str); 4] = [('b', "blackout"), ('e', "errors"), ('g', "gray"), ('h', "heal")];

/// A reason is no novel.
const REASON: usize = 200;

/// A key went down.
pub fn press(picture: &mut Picture, key: KeyEvent) -> Act {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if matches!(key.code, KeyCode::Char('c' | 'd')) { Act::Leave } else { Act::None };
    }
    match picture.asking.take() {
        Some(asking) => answer(picture, asking, key.code),
        None => command(picture, key.code),
    }
}

fn command(picture: &mut Picture, code: KeyCode) -> Act {
    let region = picture.chosen().map(|r| (r.name.clone(), r.drained.is_some()));
    let frozen = picture.status.as_ref().is_some_and(|s| s.mode == "frozen");
    let last = picture.status.as_ref().map_or(0, |s| s.regions.len().saturating_sub(1));
    let mut ask = |order| picture.asking = Some(Asking { order, refused: None });
    match (code, region) {
        (KeyCode::Char('q') | KeyCode::Esc, _) => return Act::Leave,
        (KeyCode::Up | KeyCode::Char('k'), _) => picture.selected = picture.selected.saturating_sub(1),
        (KeyCode::Down | KeyCode::Char('j'), _) => picture.selected = (picture.selected + 1).min(last),
        (KeyCode::Char('d'), Some((region, false))) => ask(Order::Drain { region, reason: String::new(), force: false }),
        (KeyCode::Char('u'), Some((region, true))) => ask(Order::Undrain { region }),
        (KeyCode::Char('f'), Some(_)) => ask(Order::Freeze { on: !frozen }),
        (KeyCode::Char(c), Some((region, _))) if picture.demo => {
            if let Some((_, word)) = FAULTS.iter().find(|(key, _)| *key == c) {
                return Act::Order(Order::Fault { region, word });
            }
        }
        _ => {}
    }
    Act::None
}

/// While something is asked, every key belongs to the answer.
fn answer(picture: &mut Picture, mut asking: Asking, code: KeyCode) -> Act {
    let refused = asking.refused.is_some();
    match (code, &mut asking.order) {
        (KeyCode::Esc, _) => return Act::None,
        (KeyCode::Char('F'), Order::Drain { force, .. }) if refused => {
            *force = true;
            return Act::Order(asking.order);
        }
        (KeyCode::Char(c), Order::Drain { reason, .. }) if !refused && reason.chars().count() < REASON => reason.push(c),
        (KeyCode::Backspace, Order::Drain { reason, .. }) if !refused => drop(reason.pop()),
        // A drain without a reason is none, and one that was refused takes more than Enter.
        (KeyCode::Enter, Order::Drain { reason, .. }) if refused || reason.trim().is_empty() => {}
        (KeyCode::Enter, _) => return Act::Order(asking.order),
        _ => {}
    }
    picture.asking = Some(asking);
    Act::None
}
