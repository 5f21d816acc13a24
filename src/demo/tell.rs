//! What the demo prints: one line a second of what users feel, and at the end what it came to.

use super::load::Second;
use super::origin::{Fault, Region};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Prints for people, with colours only on a terminal.
pub struct Teller {
    config: PathBuf,
    http: SocketAddr,
    admin: SocketAddr,
    controls: SocketAddr,
    colour: bool,
}

/// `--once` promises that at most this part of all requests fails.
const PROMISE: f64 = 0.005;

impl Teller {
    /// Tells of a proxy at these addresses.
    pub fn new(config: &Path, http: SocketAddr, admin: SocketAddr, controls: SocketAddr) -> Self {
        Self { config: config.to_owned(), http, admin, controls, colour: std::io::stdout().is_terminal() }
    }

    /// What runs, and what to try.
    pub fn welcome(&self, once: bool) {
        println!("Three regions of three app servers, a load, and Evenkeel in front of them.");
        println!("  proxy      http://{}/feed", self.http);
        println!("  admin      http://{}/   (dashboard, /v1/status, /metrics)", self.admin);
        println!("  break it   http://{}/   (buttons: black a region out, heal it)", self.controls);
        println!("  config     {}", self.config.display());
        if !once {
            println!("Try, in another shell:");
            for (region, word, what) in [
                ("east", "blackout", "the site loses power: connections hang"),
                ("east", "heal", "and comes back"),
                ("west", "errors", "every second answer is a 503, health checks pass"),
                ("west", "gray", "every tenth request hangs for ever"),
            ] {
                println!("  curl -X POST http://{}/{region}/{word:<9} # {what}", self.controls);
            }
            println!("  evenkeel status --admin http://{}", self.admin);
            println!("  evenkeel drain east --reason maintenance --admin http://{}", self.admin);
            println!("  change a weight in the config file and save it");
        }
        println!();
        println!("  time  good/s    p50    p99   degraded  refused  failed   where it was answered");
    }

    /// Something happened.
    pub fn say(&self, what: &str) {
        println!("{}", self.paint("1", &format!("  ---- {what}")));
    }

    /// One second of what users felt.
    pub fn second(&self, at: u64, s: &Second, regions: &[Region]) {
        let total = s.ok().max(1);
        let shares = regions.iter().map(|r| {
            let part = s.good.get(r.name).copied().unwrap_or(0) * 100 / total;
            let ill = if r.fault() == Fault::None { String::new() } else { format!(" ({:?})", r.fault()).to_lowercase() };
            let text = format!("{} {part:>3} %{ill}", r.name);
            if ill.is_empty() { text } else { self.paint("31", &text) }
        });
        let shares = shares.collect::<Vec<_>>().join("   ");
        let failed = format!("{:>7}", s.failed);
        let failed = if s.failed > 0 { self.paint("31;1", &failed) } else { failed };
        println!(
            "{at:>5}s {:>7} {:>4.0}ms {:>4.0}ms {:>10} {:>8} {failed}   {shares}",
            s.ok(),
            s.quantile(0.5),
            s.quantile(0.99),
            s.degraded,
            s.refused,
        );
        let _ = std::io::stdout().flush();
    }

    /// What it came to; true when users were hurt more than promised.
    pub fn summary(&self, seconds: &[Second]) -> bool {
        let mut all = Second::default();
        seconds.iter().for_each(|s| all.merge(s));
        let worst = seconds.iter().map(|s| s.failed).max().unwrap_or(0);
        let part = f64::from(all.failed) / f64::from(all.total().max(1));
        println!();
        println!(
            "{} requests through two outages: {} good, {} degraded and marked, {} refused honestly, {} failed ({:.2} %).",
            all.total(),
            all.ok(),
            all.degraded,
            all.refused,
            all.failed,
            part * 100.0
        );
        println!(
            "Half of them took {:.0} ms, 99 of 100 at most {:.0} ms; in the worst second {worst} failed.",
            all.quantile(0.5),
            all.quantile(0.99)
        );
        let hurt = part > PROMISE || all.total() == 0;
        if hurt {
            println!("That is more than the {:.1} % this demo promises: please report it.", PROMISE * 100.0);
        } else {
            println!("Without --once it goes on, and you can break things yourself.");
        }
        hurt
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
