use super::draw;
use super::feed::{News, Order};
use super::figures::Reading;
use super::keys::{Act, press};
use super::picture::Picture;
use crate::admin::wire::Status;
use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;
use std::path::Path;

const NOW: &str = "2026-11-21T12:00:00Z";

fn at(seconds: i64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
}

fn status(east: &str, suspect: bool, drained: bool) -> News {
    let out = east == "tripped";
    let cause = out.then_some("silence: nothing heard for 251 ms while 31 requests waited");
    let region = |name: &str, law: &str, state: &str, cause: Option<&str>| {
        let by = json!({"by": "operator ann", "reason": "power works", "until": "2026-11-21T13:30:00Z"});
        json!({"name": name, "jurisdiction": law, "state": state, "cause": cause, "since": "2026-11-21T11:59:48Z",
            "drained": (drained && name == "eu").then_some(by)})
    };
    let pool = |service: &str, region: &str, state: &str, share: f64, rate: f64, up: bool| {
        json!({"service": service, "region": region, "state": state, "suspect": suspect && region == "west", "share": share,
            "inflight": 7, "limit": 40, "rate": rate, "since": "2026-11-21T11:59:48Z", "cause": cause.filter(|_| region == "east"),
            "endpoints": [{"address": "10.0.0.1:80", "up": up, "ejected_until": null, "cause": null},
                          {"address": "10.0.0.2:80", "up": true, "ejected_until": null, "cause": null}]})
    };
    let (lost, kept) = if out { (0.0, 1.0) } else { (0.6, 0.4) };
    let document = json!({"edge": "edge-1", "generation": 3, "mode": "active", "edge_suspect": false,
        "regions": [region("east", "us", east, out.then_some("pools: 2 of 2 pools with traffic tripped")),
                    region("west", "us", "serving", None), region("eu", "eu", "ramping", Some("ramp at 25 % of its share"))],
        "pools": [pool("api", "east", east, lost, 600.0 * lost, !out), pool("api", "west", "serving", kept, 600.0 * kept, true),
                  pool("web", "east", east, lost, 200.0 * lost, true), pool("web", "west", "serving", kept * 0.9, 200.0 * kept, true),
                  pool("web", "eu", "ramping", 0.1, 9.4, true)],
        "config": {"path": "/etc/evenkeel.yaml", "loaded_at": "2026-11-21T11:00:00Z", "last_error": null}});
    News::Status(Box::new(serde_json::from_value::<Status>(document).unwrap()))
}

/// A page of metrics after `n` good requests and so many that were not.
fn metrics(second: i64, good: u64, refused: u64, stale: u64) -> News {
    let (all, fast) = (good + refused + stale, good - good / 50);
    News::Metrics(
        at(second),
        format!(
            "# TYPE evenkeel_requests_total counter\n\
             evenkeel_requests_total{{route=\"a, outcome=b\",outcome=\"ok\"}} {good}\n\
             evenkeel_requests_total{{route=\"a, outcome=b\",outcome=\"shed\"}} {refused}\n\
             evenkeel_requests_total{{route=\"b\",outcome=\"stale\"}} {stale}\n\
             evenkeel_request_duration_seconds_bucket{{route=\"b\",le=\"0.016\"}} {fast}\n\
             evenkeel_request_duration_seconds_bucket{{route=\"b\",le=\"0.512\"}} {all}\n\
             evenkeel_request_duration_seconds_bucket{{route=\"b\",le=\"+Inf\"}} {all}\n"
        ),
    )
}

/// Twelve calm seconds, then east dies.
fn outage(drained: bool) -> Picture {
    let mut p = Picture::new(at(0), None);
    p.hear(News::Event(at(-3600), "config 3 applied: region east weight: 50 -> 60 (operator ann)".into()));
    for s in 0..12 {
        p.hear(status("serving", false, drained));
        p.hear(metrics(s - 20, 800 * s as u64, 0, 0));
    }
    p.hear(News::Event(at(-12), "pool api/east tripped, was serving: silence: nothing heard for 251 ms while 31 requests waited".into()));
    p.hear(News::Event(at(-12), "region east tripped, was serving: pools: 2 of 2 pools with traffic tripped".into()));
    p.hear(status("tripped", true, drained));
    p.hear(metrics(-8, 8800 + 740, 12, 40));
    p.hear(metrics(-7, 8800 + 1520, 12, 60));
    p
}

fn screen(p: &Picture, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw::draw(frame, p, false)).unwrap();
    let cells = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| cells[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
    (0..height).map(row).collect()
}

fn golden(name: &str, is: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/screen/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, is).unwrap();
    }
    let should = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(should == is, "{} differs; it says now:\n{is}", path.display());
}

fn typed(p: &mut Picture, text: &str) -> Act {
    text.chars().map(|c| press(p, KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))).last().unwrap()
}

fn key(p: &mut Picture, code: KeyCode) -> Act {
    press(p, KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn an_outage_on_wide_narrow_and_small_terminals() {
    let p = outage(true);
    golden("wide.txt", &screen(&p, 120, 34));
    golden("eighty.txt", &screen(&p, 80, 24));
    golden("narrow.txt", &screen(&p, 48, 30));
    // No size is too small to be drawn on.
    for (width, height) in [(1, 1), (9, 3), (20, 200), (300, 5)] {
        screen(&p, width, height);
    }
}

#[test]
fn no_state_is_told_by_colour_alone() {
    let p = outage(true);
    let text = screen(&p, 100, 30);
    for word in ["✕ tripped", "● serving", "◑ ramping", "? suspect", "❚❚ drained", "1 of 3 out, 1 coming back, 1 drained"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).unwrap();
    terminal.draw(|frame| draw::draw(frame, &p, true)).unwrap();
    assert!(terminal.backend().buffer().content.iter().any(|c| c.fg == ratatui::style::Color::Red));
}

#[test]
fn a_proxy_that_does_not_answer_leaves_the_last_picture() {
    let mut p = Picture::new(at(0), None);
    p.hear(News::Lost("no Evenkeel answers at http://127.0.0.1:9900: refused".into()));
    assert!(screen(&p, 80, 10).contains("no Evenkeel answers"));
    let mut p = outage(false);
    p.hear(News::Lost("refused".into()));
    p.now = at(7);
    assert!(screen(&p, 80, 24).contains("! no answer for 7 s, this is the last picture: refused"));
    p.hear(status("serving", false, false));
    assert!(!screen(&p, 80, 24).contains("no answer"));
}

#[test]
fn a_drain_asks_for_its_reason_and_can_be_forced_when_refused() {
    let mut p = outage(false);
    assert_eq!(key(&mut p, KeyCode::Down), Act::None);
    typed(&mut p, "d");
    assert_eq!(key(&mut p, KeyCode::Enter), Act::None, "no drain without a reason");
    typed(&mut p, "works q");
    assert!(screen(&p, 80, 24).contains("> works q▏"));
    let Act::Order(order) = key(&mut p, KeyCode::Enter) else { panic!("no order") };
    assert_eq!(order, Order::Drain { region: "west".into(), reason: "works q".into(), force: false });
    p.hear(News::Refused(order, "api: west carries 100 %; nobody else may; force".into()));
    assert!(screen(&p, 80, 24).contains("Refused: api: west carries 100 %"));
    assert_eq!(key(&mut p, KeyCode::Enter), Act::None);
    let Act::Order(Order::Drain { force, .. }) = typed(&mut p, "F") else { panic!("no order") };
    assert!(force && p.asking.is_none());
    typed(&mut p, "d");
    assert_eq!(key(&mut p, KeyCode::Esc), Act::None);
    assert!(p.asking.is_none());
    assert_eq!(key(&mut p, KeyCode::Esc), Act::Leave);
}

#[test]
fn keys_mean_what_the_last_line_says() {
    let mut p = outage(true);
    typed(&mut p, "jj");
    assert_eq!(typed(&mut p, "d"), Act::None);
    assert!(p.asking.is_none(), "eu is drained already");
    typed(&mut p, "u");
    assert_eq!(key(&mut p, KeyCode::Enter), Act::Order(Order::Undrain { region: "eu".into() }));
    typed(&mut p, "f");
    assert_eq!(key(&mut p, KeyCode::Enter), Act::Order(Order::Freeze { on: true }));
    assert_eq!(typed(&mut p, "b"), Act::None, "regions that are real are not broken");
    (p.demo, p.about) = (true, Some("dashboard http://127.0.0.1:9900/".into()));
    let order = Order::Fault { region: "eu".into(), word: "blackout" };
    assert_eq!(typed(&mut p, "b"), Act::Order(order.clone()));
    p.hear(News::Done(order, vec!["eu: blackout".into()]));
    let text = screen(&p, 80, 30);
    assert!(text.contains("simulated fault: blackout") && text.contains("✓ eu: blackout") && text.contains("dashboard http://"), "{text}");
    assert_eq!(press(&mut p, KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Act::Leave);
}

#[test]
fn figures_are_what_came_between_two_readings() {
    let text = |news| match news {
        News::Metrics(_, page) => Reading::of(&page),
        _ => unreachable!(),
    };
    let f = text(metrics(0, 1000, 10, 40)).since(&text(metrics(0, 200, 0, 40)), 2.0);
    assert_eq!((f.good, f.refused, f.degraded, f.failed, f.rate), (400.0, 5.0, 0.0, 0.0, 405.0));
    assert!(f.p50.unwrap() < 16.0 && f.p99.unwrap() > 16.0, "{f:?}");
    // A proxy that began anew counts from nothing.
    let f = text(metrics(0, 5, 0, 0)).since(&text(metrics(0, 200, 0, 40)), 1.0);
    assert_eq!((f.rate, f.p99), (0.0, None));
}
