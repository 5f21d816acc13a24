//! What deciding costs: `cargo bench --bench decision` (part of `make bench`).
//!
//! | bench | what one iteration is | goal (2 shared cores) |
//! |---|---|---|
//! | `request/…` | route + choose + observe of one request: 20 regions, 500 endpoints, 1,000 routes | below 400 ns |
//! | `tick/…` | sampling every cell and handling a full tick: 10,000 endpoints, half of them at work | below 5 ms |
//! | `reload/…` | text → checked → compiled → new cells → controller: 10,000 endpoints in 20 regions, 5,000 routes | below 500 ms |
//!
//! Nothing here asserts on time; `benches/REPORT.md` holds figures with machine and date.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use evenkeel::config;
use evenkeel::live::{Cells, Sampler};
use evenkeel::model::dice::Dice;
use evenkeel::model::event::Actor;
use evenkeel::model::outcome::Outcome;
use evenkeel::model::signal::Signal;
use evenkeel::model::time::{Duration, Moment};
use evenkeel::model::view::{Compiled, Facts, Fields, RequestFacts, View};
use evenkeel::sense::Controller;
use evenkeel::steer::attempt::{Attempt, Step};
use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

const REGIONS: usize = 20;

/// A config of so many endpoints and routes, as text. Hosts and prefixes differ by route; every tenth has a residency.
fn text(endpoints: usize, routes: usize) -> String {
    let services = (endpoints / (REGIONS * 5)).clamp(1, 100);
    let each = endpoints / (REGIONS * services);
    let mut t = String::from("version: 1\nlisteners: [{address: 127.0.0.1:0}]\nregions:\n");
    for r in 0..REGIONS {
        let place = ["us", "eu", "jp"][r % 3];
        writeln!(t, "  r{r}: {{jurisdiction: {place}, weight: {}, tier: {}, fates: [grid-{}]}}", 10 + r, 1 + r / 10, r / 2).unwrap();
    }
    t.push_str("services:\n");
    let mut n = 0;
    for s in 0..services {
        writeln!(t, "  s{s}:\n    pools:").unwrap();
        for r in 0..REGIONS {
            let list: Vec<String> = (0..each)
                .map(|_| {
                    n += 1;
                    format!("10.{}.{}.{}:80", n / 65536, n / 256 % 256, n % 256)
                })
                .collect();
            writeln!(t, "      r{r}: {{endpoints: [{}]}}", list.join(", ")).unwrap();
        }
    }
    t.push_str("routes:\n");
    for r in 0..routes {
        let residency = if r % 10 == 0 { ", residency: [us]" } else { "" };
        let m = format!("{{host: h{}.example.com, path_prefix: /p{r}/}}", r % 50);
        writeln!(t, "  - {{name: route-{r}, match: {m}, service: s{}, deadline: 2s{residency}}}", r % services).unwrap();
    }
    t.push_str("  - {name: rest, service: s0, deadline: 2s}\n");
    t
}

fn compile(text: &str, generation: u64) -> Arc<Compiled> {
    let loaded = config::parse(text, Path::new("bench.yaml")).unwrap_or_else(|p| panic!("{p}"));
    Arc::new(loaded.compile(generation))
}

struct World {
    config: Arc<Compiled>,
    cells: Cells,
    view: Arc<View>,
    controller: Controller,
    sampler: Sampler,
    now: Moment,
    dice: Dice,
}

struct None_;
impl Fields for None_ {
    fn get(&self, _: &str) -> Option<&[u8]> {
        None
    }
    fn each(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}
}

impl World {
    fn new(endpoints: usize, routes: usize) -> Self {
        let config = compile(&text(endpoints, routes), 1);
        let cells = Cells::build(&config.topology, None);
        let now = Moment::ms(1_000_000);
        let controller = Controller::new(config.clone(), now, Dice::new(1));
        let (view, sampler) = (controller.picture(), Sampler::new(&cells));
        Self { config, cells, view, controller, sampler, now, dice: Dice::new(2) }
    }

    /// One request from its head to its good answer.
    fn request(&mut self, host: &str, path: &str) {
        let facts = RequestFacts { method: "GET", host, path, headers: &None_ };
        let route = self.config.routes.find(&facts).expect("a route");
        let policy = &self.config.topology.routes[route.at()];
        let facts = Facts { route, safe: true, keyed: false, upgrade: false, started: self.now, priority: policy.priority };
        let mut attempt = Attempt::new(facts, &self.view);
        let Step::Try(plan) = attempt.step(self.now, &self.view, &self.cells, &mut self.dice) else { panic!("no place") };
        let mut flight = self.cells.begin(route, plan.endpoint, self.now, plan.trial);
        let done = self.now + Duration::from_micros(2_000);
        flight.first_byte(done);
        black_box(attempt.accepts(&self.view, Outcome::Ok));
        flight.end(done, Outcome::Ok);
        self.now += Duration::from_micros(50);
    }

    /// Time passes, and a full tick is sampled and handled.
    fn tick(&mut self) {
        self.now += Duration::from_millis(100);
        let tallies = self.cells.sample(&mut self.sampler, self.now, true, Duration::ZERO);
        let _ = self.controller.handle(self.now, Signal::Tick(tallies));
        if let Some(view) = self.controller.view() {
            self.view = view;
        }
        black_box(self.controller.grants());
        while self.controller.poll_event().is_some() {}
    }
}

fn decisions(c: &mut Criterion) {
    for (endpoints, routes) in [(500, 1_000), (10_000, 5_000)] {
        let mut w = World::new(endpoints, routes);
        let names: Vec<(String, String)> =
            (0..997).map(|i| i * 7 % routes).map(|r| (format!("h{}.example.com", r % 50), format!("/p{r}/x/y"))).collect();
        let mut i = 0;
        c.bench_function(&format!("request/{REGIONS} regions, {endpoints} endpoints, {routes} routes"), |b| {
            b.iter(|| {
                let (host, path) = &names[i % names.len()];
                i += 1;
                w.request(host, path);
                if i.is_multiple_of(20_000) {
                    w.tick();
                }
            });
        });
    }
}

fn ticks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tick");
    group.sample_size(30);
    for endpoints in [500, 2_000, 10_000] {
        let mut w = World::new(endpoints, 1_000);
        for r in 0..5_000 {
            w.request(&format!("h{}.example.com", r % 50), &format!("/p{}/", r % 1_000));
        }
        let mut i = 0;
        group.bench_function(BenchmarkId::from_parameter(format!("{endpoints} endpoints")), |b| {
            b.iter(|| {
                for _ in 0..20 {
                    i += 1;
                    w.request(&format!("h{}.example.com", i % 50), &format!("/p{}/", i % 1_000));
                }
                w.tick();
            });
        });
    }
    group.finish();
}

fn reloads(c: &mut Criterion) {
    let mut group = c.benchmark_group("reload");
    group.sample_size(10);
    for (endpoints, routes) in [(1_000, 500), (10_000, 5_000)] {
        let text = text(endpoints, routes);
        let mut w = World::new(endpoints, routes);
        let mut generation = 1;
        group.bench_function(BenchmarkId::from_parameter(format!("{endpoints} endpoints, {routes} routes")), |b| {
            b.iter(|| {
                generation += 1;
                let next = compile(&text, generation);
                w.cells = Cells::build(&next.topology, Some((&w.config.topology, &w.cells)));
                let _ = w.controller.handle(w.now, Signal::Reload(next.clone(), Actor::File));
                w.view = w.controller.view().unwrap_or(w.view.clone());
                w.config = next;
                while w.controller.poll_event().is_some() {}
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, ticks, reloads);
criterion_main!(benches);
