use super::wire::*;
use super::*;
use crate::live::testing::{compiled, topology};
use crate::live::{Cells, Message, Picture, inbox};
use crate::model::event::{Actor, Cause, Event};
use crate::model::id::{EndpointIx, PoolIx, RouteIx, ServiceIx, TableIx};
use crate::model::outcome::{Outcome, RequestOutcome};
use crate::model::signal::{Command, Order, Refused};
use crate::model::time::{Duration, Moment};
use crate::model::topology::{Admin, Token};
use crate::model::view::{PoolView, Slot, State, TableView, View};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An API on a real socket, with a control task that writes down what it is told.
struct House {
    address: SocketAddr,
    inbox: Inbox,
    published: Arc<Published>,
    commands: Arc<Mutex<Vec<(Actor, Order)>>>,
    leaving: Arc<AtomicBool>,
}

fn regions() -> Topology {
    let mut t = topology(&[("east", 2), ("west", 1), ("eu", 1)]);
    t.regions[0].fates = vec!["grid-a".into()];
    t.regions[1].fates = vec!["grid-a".into(), "provider-b".into()];
    t.regions[0].jurisdiction = Some("us".into());
    t.regions[2].jurisdiction = Some("eu".into());
    t.pools[2].tier = 2;
    t
}

fn picture(generation: u64, t: Topology) -> Arc<Picture> {
    let cells = Arc::new(Cells::build(&t, None));
    let pool = PoolView {
        state: State::Serving,
        suspect: false,
        drained: false,
        dead: false,
        limit: 20,
        reserve: Default::default(),
        epoch: 0,
        share: 0.5,
    };
    let mut pools = vec![pool; t.pools.len()];
    pools.iter_mut().skip(2).for_each(|p| p.share = 0.0);
    let standby = (pools.len() > 2).then_some(PoolIx(2));
    let slots = vec![Slot { pool: PoolIx(0), upto: u64::MAX / 2 }, Slot { pool: PoolIx(1), upto: u64::MAX }];
    let table = TableView { slots, order: [PoolIx(0), PoolIx(1)].into_iter().chain(standby).collect(), ..TableView::default() };
    let view = View { version: 1, config: compiled(generation, t), edge_suspect: false, pools, tables: vec![table] };
    Arc::new(Picture { view: Arc::new(view), cells })
}

fn status_of(t: &Topology) -> Status {
    let since = When::Moment(crate::clock::now());
    let drained = Some(Drained { by: "operator ann".into(), reason: "works".into(), until: Some(since.clone()), by_file: false });
    let region = |i: usize| RegionStatus {
        name: t.regions[i].name.to_string(),
        jurisdiction: None,
        state: if i == 0 { State::Tripped } else { State::Serving },
        drained: if i == 0 && t.regions.len() > 2 { drained.clone() } else { None },
        cause: Some(Cause::Heard.to_string()),
        since: since.clone(),
    };
    Status {
        edge: t.edge.name.clone(),
        generation: 1,
        mode: "active".into(),
        edge_suspect: false,
        regions: (0..t.regions.len()).map(region).collect(),
        pools: vec![],
        config: ConfigStatus { path: "x.yaml".into(), loaded_at: Some(since.clone()), last_error: None },
        fleet: None,
    }
}

async fn house(mut t: Topology, tokens: Vec<Token>) -> House {
    let (inbox, mut messages) = inbox();
    t.admin = Some(Admin { address: "127.0.0.1:0".parse().unwrap(), tokens });
    let first = picture(1, t);
    let published = Arc::new(Published::new(first));
    let commands = Arc::new(Mutex::new(Vec::new()));
    let (told, seen, record) = (commands.clone(), published.clone(), inbox.clone());
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Command(Command { order: Order::Reset { .. }, .. }, reply) => {
                    let _ = reply.send(Err(Refused::Conflict("pool app/east is serving already".into())));
                }
                Message::Command(Command { by, order }, reply) => {
                    told.lock().push((by, order));
                    let _ = reply.send(Ok(vec!["changed".into()]));
                }
                Message::Status(reply) => drop(reply.send(status_of(seen.load().view.topology()))),
                Message::Note(at, by, kind) => record.tell(Arc::new(Event { seq: 1, at, by, kind })),
                _ => {}
            }
        }
    });
    let leaving = Arc::new(AtomicBool::new(false));
    let context = Context {
        inbox: inbox.clone(),
        published: published.clone(),
        reload: Box::new(|_| Box::pin(async { Err(vec!["a.yaml:3:5: regions.east: no such key".into(), "second".into()]) })),
        journal: None,
        ledger: Ledger::default(),
        spool: None,
        fleet: None,
        leaving: leaving.clone(),
        connections: Box::new(|| vec![("127.0.0.1:8080".into(), 7)]),
        purge: Arc::new(|pattern| if *pattern == Pattern::All { 3 } else { 0 }),
        copies: Box::new(|| (4096, 5)),
        certificates: Box::new(|| vec![("site \"a\"\\".into(), 1_800_000_000)]),
        spans: Box::new(|| [("sent", 5), ("dropped", 0), ("failed", 0)]),
    };
    let listener = bind(published.load().view.topology()).unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(run(context, Some(listener)));
    House { address, inbox, published, commands, leaving }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }
}

async fn ask_with(to: SocketAddr, line: &str, headers: &str, body: &str) -> Answer {
    let mut s = TcpStream::connect(to).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
    s.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    s.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_ascii_lowercase(), body: body.into() }
}

async fn ask(h: &House, line: &str, body: &str) -> Answer {
    ask_with(h.address, line, "", body).await
}

#[tokio::test]
async fn status_has_wall_clock_times_and_strict_headers() {
    let h = house(regions(), vec![]).await;
    let a = ask(&h, "GET /v1/status", "").await;
    assert_eq!(a.status, 200);
    let got = a.json();
    let since: jiff::Timestamp = got["regions"][0]["since"].as_str().unwrap().parse().unwrap();
    assert!(since.duration_since(crate::clock::wall_now()).abs() < jiff::SignedDuration::from_secs(60));
    assert_eq!(got["regions"][0]["drained"]["by"], "operator ann");
    assert!(got["regions"][0]["drained"]["until"].is_string() && got["config"]["loaded_at"].is_string());
    let keys: Vec<_> = got.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["edge", "generation", "mode", "edge_suspect", "regions", "pools", "config"]);
    for header in ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff", "cache-control: no-store"] {
        assert!(a.head.contains(header), "{}", a.head);
    }
}

#[tokio::test]
async fn drain_tells_the_controller_who_and_why() {
    let h = house(regions(), vec![]).await;
    let a = ask(&h, "POST /v1/regions/east/drain", r#"{"reason": " works ", "over": "1m30s", "for": "2h"}"#).await;
    assert_eq!((a.status, a.json()), (200, json!({"changes": ["changed"], "generation": 1})));
    let (by, order) = h.commands.lock()[0].clone();
    let (over, lasting) = (Duration::from_secs(90), Some(Duration::from_secs(7200)));
    assert_eq!((by, order), (Actor::Operator("local".into()), Order::Drain { region: 0.into(), reason: "works".into(), over, lasting }));
    // A fate stands for every region that has it.
    assert_eq!(ask(&h, "POST /v1/regions/grid-a/undrain", "").await.status, 200);
    assert_eq!(
        h.commands.lock()[1..].iter().map(|(_, o)| o.clone()).collect::<Vec<_>>(),
        [Order::Undrain { region: 0.into() }, Order::Undrain { region: 1.into() }]
    );
}

#[tokio::test]
async fn copies_are_purged_by_pattern() {
    let h = house(regions(), vec![]).await;
    let purge = async |pattern: &str| {
        let a = ask(&h, "POST /v1/stale/purge", &format!(r#"{{"pattern": "{pattern}"}}"#)).await;
        (a.status, a.json()["changes"].clone())
    };
    let mut letters = h.inbox.events();
    assert_eq!(purge("*").await, (200, json!(["3 last good copies purged: *"])));
    assert_eq!(letters.recv().await.unwrap().kind, EventKind::StalePurged { pattern: "*".into(), copies: 3 });
    assert_eq!(purge("/none/").await, (200, json!([])));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_do() {
    let h = house(regions(), vec![]).await;
    for (line, body, status, says) in [
        ("POST /v1/regions/east/drain", "{}", 400, "a `reason` is needed"),
        ("POST /v1/regions/east/drain", r#"{"reason": "x", "over": "5"}"#, 400, "no unit"),
        ("POST /v1/regions/east/drain", r#"{"reasn": "x"}"#, 400, "unknown field `reasn`"),
        ("POST /v1/regions/mars/drain", r#"{"reason": "x"}"#, 404, "no region or fate `mars`; there are east, west, eu, grid-a"),
        ("POST /v1/pools/app/mars/trip", r#"{"reason": "x"}"#, 404, "no pool `app/mars`; there are app/east"),
        ("POST /v1/pools/app/east/trip", "", 400, "a `reason` is needed"),
        ("POST /v1/pools/app/east/reset", "", 409, "is serving already"),
        ("PUT /v1/freeze", "{}", 400, "missing field `on`"),
        ("POST /v1/stale/purge", r#"{"pattern": ""}"#, 400, "a `pattern` is needed"),
        ("POST /v1/stale/purge", r#"{"pattern": "nosuch"}"#, 400, "there is no route `nosuch`"),
        ("GET /v1/nothing", "", 404, "/v1/openapi.json lists"),
        ("DELETE /v1/status", "", 405, "does not take DELETE"),
        ("POST /v1/explain", r#"{"url": "http://["}"#, 400, "is not a URL"),
    ] {
        let a = ask(&h, line, body).await;
        assert_eq!(a.status, status, "{line} {}", a.body);
        assert!(a.head.contains("content-type: application/problem+json"), "{line}: {}", a.head);
        assert!(a.json()["detail"].as_str().unwrap().contains(says), "{line}: {}", a.body);
    }
    assert!(h.commands.lock().is_empty());
}

#[tokio::test]
async fn the_last_region_is_not_drained_without_force() {
    let h = house(topology(&[("east", 1)]), vec![]).await;
    let a = ask(&h, "POST /v1/regions/east/drain", r#"{"reason": "x"}"#).await;
    assert_eq!(a.status, 409);
    assert_eq!(a.json()["problems"], json!(["route all: no region is left that may and can serve it: only degraded answers ()"]));
    assert_eq!(ask(&h, "POST /v1/regions/east/drain", r#"{"reason": "x", "force": true}"#).await.status, 200);
    assert_eq!(h.commands.lock().len(), 1);
}

#[tokio::test]
async fn a_bad_file_is_answered_with_all_its_problems() {
    let h = house(regions(), vec![]).await;
    let a = ask(&h, "POST /v1/reload", "").await;
    assert_eq!((a.status, &a.json()["problems"][1]), (422, &json!("second")));
    assert!(a.json()["detail"].as_str().unwrap().contains("a.yaml:3:5"));
}

#[tokio::test]
async fn explain_says_where_and_why() {
    let h = house(regions(), vec![]).await;
    let a = ask(&h, "POST /v1/explain", r#"{"url": "http://www.example.com:8080/a?b", "method": "get"}"#).await;
    let got: explain::Explanation = serde_json::from_str(&a.body).unwrap();
    assert_eq!((got.host.as_str(), got.path.as_str(), got.method.as_str()), ("www.example.com", "/a", "GET"));
    let shares: Vec<_> = got.regions.iter().map(|r| format!("{} {:.2} {}/{} {}", r.region, r.share, r.up, r.endpoints, r.why)).collect();
    assert_eq!(
        shares,
        [
            "east 0.50 2/2 50.0 % of first attempts",
            "west 0.50 1/1 50.0 % of first attempts",
            "eu 0.00 1/1 tier 2: gets what lower tiers cannot take"
        ]
    );
}

#[tokio::test]
async fn liveness_and_readiness() {
    let h = house(regions(), vec![]).await;
    assert_eq!((ask(&h, "GET /livez", "").await.status, ask(&h, "GET /readyz", "").await.status), (200, 200));
    h.leaving.store(true, Relaxed);
    assert_eq!((ask(&h, "GET /livez", "").await.status, ask(&h, "GET /readyz", "").await.status), (200, 503));
}

#[tokio::test]
async fn tokens_are_read_from_files_and_again_at_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "secret-1\n").unwrap();
    let token = Token { name: "ann".into(), file: file.clone(), write: true };
    let h = house(regions(), vec![token]).await;
    let freeze = async |secret: &str| {
        ask_with(h.address, "PUT /v1/freeze", &format!("Authorization: Bearer {secret}\r\n"), r#"{"on": true}"#).await.status
    };
    assert_eq!((freeze("secret-1").await, freeze("secret-2").await), (200, 401));
    assert_eq!(h.commands.lock()[0].0, Actor::Operator("ann".into()));
    assert_eq!((ask(&h, "GET /v1/status", "").await.status, ask(&h, "GET /livez", "").await.status), (401, 200));
    std::fs::write(&file, "secret-2").unwrap();
    let kind = EventKind::ConfigApplied { generation: 2, changes: vec![] };
    h.inbox.tell(Arc::new(Event { seq: 1, at: Moment::ms(1), by: Actor::File, kind }));
    let deadline = crate::clock::now() + Duration::from_secs(10);
    while freeze("secret-2").await != 200 {
        assert!(crate::clock::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(freeze("secret-1").await, 401);
}

#[tokio::test]
async fn another_address_is_followed() {
    let h = house(regions(), vec![]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut t = regions();
    t.admin = Some(Admin { address: free, tokens: vec![] });
    h.published.store(picture(2, t));
    let kind = EventKind::ConfigApplied { generation: 2, changes: vec![] };
    h.inbox.tell(Arc::new(Event { seq: 1, at: Moment::ms(1), by: Actor::File, kind }));
    let deadline = crate::clock::now() + Duration::from_secs(10);
    while TcpStream::connect(free).await.is_err() {
        assert!(crate::clock::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask_with(free, "GET /livez", "", "").await.status, 200);
}

#[tokio::test]
async fn events_are_streamed_with_kind_and_seq() {
    let h = house(regions(), vec![]).await;
    let s = TcpStream::connect(h.address).await.unwrap();
    let mut s = BufReader::new(s);
    s.write_all(format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\n\r\n", h.address).as_bytes()).await.unwrap();
    let mut lines = s.lines();
    let mut until = async |what: &str| loop {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.unwrap().unwrap().unwrap();
        if line.starts_with(what) {
            return line;
        }
    };
    assert_eq!(until("content-type").await, "content-type: text/event-stream");
    until(": connected").await;
    h.inbox.tell(Arc::new(Event { seq: 41, at: crate::clock::now(), by: Actor::File, kind: EventKind::Freeze { on: true } }));
    assert_eq!(until("event").await, "event: freeze");
    assert_eq!(until("id").await, "id: 41");
    let data: Value = serde_json::from_str(&until("data").await[6..]).unwrap();
    assert_eq!((&data["kind"], &data["on"], &data["seq"], &data["edge"]), (&json!("freeze"), &json!(true), &json!(41), &json!("edge")));
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_let_go() {
    let h = house(regions(), vec![]).await;
    let mut s = TcpStream::connect(h.address).await.unwrap();
    s.write_all(format!("GET /v1/events HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", h.address).as_bytes()).await.unwrap();
    let mut first = [0; 1024];
    while !String::from_utf8_lossy(&first).contains("connected") {
        assert!(s.read(&mut first).await.unwrap() > 0);
    }
    // More at once than its share of the broadcast holds.
    let changes = vec!["x".repeat(100)];
    for seq in 0..6000 {
        let kind = EventKind::ConfigApplied { generation: 1, changes: changes.clone() };
        h.inbox.tell(Arc::new(Event { seq, at: Moment::ms(1), by: Actor::File, kind }));
    }
    let mut rest = String::new();
    tokio::time::timeout(Duration::from_secs(10), s.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(rest.contains("event: lagged") && rest.contains(r#"data: {"missed":"#), "{rest}");
}

#[test]
fn the_document_and_the_router_say_the_same() {
    let document: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    let mut written: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        written.extend(item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())));
    }
    let mut routed: Vec<(String, String)> = api::listed().into_iter().map(|(m, p)| (m.into(), p.into())).collect();
    written.sort();
    routed.sort();
    assert_eq!(written, routed);
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split(r##""$ref":"#"##).skip(1) {
        let pointer = &reference[..reference.find('"').unwrap()];
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn the_scrape_is_well_formed_and_counts() {
    let h = house(regions(), vec![]).await;
    let picture = h.published.load_full();
    let mut flight = picture.cells.begin(RouteIx(0), EndpointIx(1), Moment::ms(1000), false);
    flight.first_byte(Moment::ms(1004));
    flight.end(Moment::ms(1004), Outcome::Ok);
    picture.cells.route(RouteIx(0)).finished(RequestOutcome::Stale, Duration::from_micros(4100));
    picture.cells.service(ServiceIx(0)).hedged(true);
    picture.cells.endpoint(EndpointIx(1)).set_probe_down(true);
    let a = ask(&h, "GET /metrics", "").await;
    let lines: Vec<&str> = a.body.lines().collect();
    well_formed(&lines);
    for line in [
        r#"evenkeel_requests_total{route="all",outcome="stale"} 1"#,
        r#"evenkeel_requests_total{route="all",outcome="shed"} 0"#,
        r#"evenkeel_attempts_total{service="app",region="east",result="ok"} 1"#,
        r#"evenkeel_attempts_total{service="app",region="eu",result="connect"} 0"#,
        r#"evenkeel_request_duration_seconds_bucket{route="all",le="0.004096"} 0"#,
        r#"evenkeel_request_duration_seconds_bucket{route="all",le="0.006144"} 1"#,
        r#"evenkeel_request_duration_seconds_bucket{route="all",le="+Inf"} 1"#,
        r#"evenkeel_request_duration_seconds_sum{route="all"} 0.0041"#,
        r#"evenkeel_attempt_duration_seconds_count{service="app",region="east"} 1"#,
        r#"evenkeel_hedges_total{service="app",won="true"} 1"#,
        r#"evenkeel_region_state{region="east",state="tripped"} 1"#,
        r#"evenkeel_region_state{region="east",state="serving"} 0"#,
        r#"evenkeel_pool_state{service="app",region="east",state="serving"} 1"#,
        r#"evenkeel_drained{region="east"} 1"#,
        r#"evenkeel_share{service="app",region="west"} 0.5"#,
        r#"evenkeel_endpoint_up{service="app",region="east",endpoint="127.0.0.1:8080"} 1"#,
        r#"evenkeel_endpoint_up{service="app",region="east",endpoint="127.0.0.2:8080"} 0"#,
        r#"evenkeel_concurrency_limit{service="app",region="west"} 20"#,
        r#"evenkeel_inflight{service="app",region="east"} 0"#,
        r#"evenkeel_retries_total{service="app"} 0"#,
        r#"evenkeel_shed_total{route="all",priority="normal"} 0"#,
        r#"evenkeel_refusal_duration_seconds_count{priority="critical"} 0"#,
        "evenkeel_config_generation 1",
        r#"evenkeel_config_reloads_total{result="rejected"} 0"#,
        r#"evenkeel_connections{listener="127.0.0.1:8080"} 7"#,
        r#"evenkeel_certificate_expiry_seconds{name="site \"a\"\\"} 1800000000"#,
    ] {
        assert!(lines.contains(&line), "{line}\n{}", a.body);
    }
    let cpu = lines.iter().find_map(|l| l.strip_prefix("process_cpu_seconds_total ")).unwrap();
    assert!(cpu.parse::<f64>().unwrap() >= 0.0);
}

/// Families announced once before their samples, no sample twice, buckets rising.
fn well_formed(lines: &[&str]) {
    let (mut families, mut samples, mut family, mut last) = (Vec::new(), std::collections::HashSet::new(), "", (String::new(), 0.0));
    for line in lines {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap();
            assert!(!families.contains(&family), "{family} twice");
            families.push(family);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(family), "{line} in {family}");
            assert!(samples.insert(name), "{line} twice");
            let value: f64 = value.parse().unwrap();
            if let Some((series, _)) = name.split_once("le=\"") {
                assert!(last.0 != series || value >= last.1, "{line} falls");
                last = (series.into(), value);
            }
        }
    }
}

#[test]
fn ten_thousand_endpoints_take_milliseconds() {
    let names: Vec<String> = (0..50).map(|i| format!("region-{i}")).collect();
    let regions: Vec<(&str, u32)> = names.iter().map(|n| (n.as_str(), 200)).collect();
    let mut t = topology(&regions);
    t.tables[0].service = ServiceIx(0);
    let mut big = picture(1, t).view.as_ref().clone();
    big.tables[TableIx(0).at()] = TableView::default();
    let cells = Arc::new(Cells::build(big.topology(), None));
    let picture = Picture { view: Arc::new(big), cells };
    let scrape = || {
        let before = crate::clock::now();
        let page = metrics::page(&picture, Moment::ms(1000), &metrics::Beside::default());
        (crate::clock::now().since(before), page)
    };
    let (took, page) = (0..5).map(|_| scrape()).min_by_key(|(took, _)| *took).unwrap();
    assert!(page.lines().count() > 10_000);
    // A debug build on a machine that builds other things besides; optimised it is about 2 ms.
    assert!(took < Duration::from_millis(300), "{took:?}");
}

#[tokio::test]
async fn a_plan_is_made_against_the_config_in_force() {
    let h = house(regions(), vec![]).await;
    let config = "version: 1\nlisteners: [{address: \"127.0.0.1:1\"}]\nregions: {east: {}, west: {weight: 0}}\n\
                  services: {app: {pools: {east: {endpoints: [\"127.0.0.1:2\"]}, west: {endpoints: [\"127.0.0.1:3\"]}}}}\n\
                  routes: [{name: all, service: app}]\n";
    let a = ask(&h, "POST /v1/plan", &json!({"config": config, "lose": ["west"], "rates": {"app": "100/s"}}).to_string()).await;
    let got = a.json();
    assert_eq!((a.status, &got["load"]), (200, &json!("given")), "{}", a.body);
    assert!(got["changes"].as_array().unwrap().iter().any(|c| c == "region eu removed"), "{got}");
    // East is drained by an operator, and stays so under any config.
    let west = &got["services"][0]["pools"][1];
    assert_eq!((west["pool"].as_str(), west["then"].as_f64()), (Some("app/west"), Some(1.0)), "{got}");
    assert_eq!(got["safe"], false);
    assert!(got["reasons"][0].as_str().unwrap().starts_with("losing west: route all: no region is left"), "{got}");
    let bad = ask(&h, "POST /v1/plan", r#"{"config": "version: 1"}"#).await;
    assert!(bad.status == 422 && bad.json()["problems"].as_array().unwrap().len() > 2, "{}", bad.body);
    assert_eq!(ask(&h, "POST /v1/plan", &json!({"config": config, "lose": ["mars"]}).to_string()).await.status, 400);
}
