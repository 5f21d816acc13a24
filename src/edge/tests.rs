//! The way of a request in virtual time: clients and endpoints are pipes, hours pass in milliseconds.

use super::connection::{Guest, http1};
use super::listener::Settings;
use super::worker::{Setup, Worker};
use super::{access, trace};
use crate::clock;
use crate::live::{Beats, Cells, Picture, Published, Sampler, testing};
use crate::model::id::{EndpointIx, PoolIx, RouteIx, ServiceIx};
use crate::model::policy::{Hedge, HedgeAfter, Writes};
use crate::model::time::Duration;
use crate::model::topology::{Listener, Topology};
use crate::model::view::{Compiled, PoolView, Slot, Source, State, TableView, View};
use crate::steer::route::Router;
use crate::upstream::dial::Dialling;
use crate::upstream::{Dial, Stream, Target};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

/// What an endpoint does with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Answers with its region's name after so many milliseconds.
    Answer(u64),
    /// Takes requests and says nothing.
    Nothing,
}

/// Endpoints by region; a connection to one is a pipe to a task.
#[derive(Clone)]
struct Pipes {
    does: Rc<[Does]>,
    asked: Rc<RefCell<Vec<(usize, String)>>>,
}

impl Dial for Pipes {
    fn dial<'a>(&'a self, to: &'a Target) -> Dialling<'a> {
        // `live::testing` puts the endpoints of the n-th region at 127.0.n.x.
        let std::net::IpAddr::V4(address) = to.address.ip() else { unreachable!() };
        let region = usize::from(address.octets()[2]);
        let (near, far) = duplex(64 << 10);
        spawn_local(endpoint(far, region, self.clone()));
        Box::pin(async move { Ok(Stream::Other(Box::new(near))) })
    }
}

async fn endpoint(mut pipe: DuplexStream, region: usize, pipes: Pipes) {
    let mut input = Vec::new();
    loop {
        while !complete(&input) {
            if !matches!(pipe.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        }
        pipes.asked.borrow_mut().push((region, String::from_utf8_lossy(&input).into_owned()));
        input.clear();
        match pipes.does[region] {
            Does::Nothing => std::future::pending().await,
            Does::Answer(after) => {
                tokio::time::sleep(Duration::from_millis(after)).await;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", ["a", "b", "c"][region]);
                let _ = pipe.write_all(answer.as_bytes()).await;
            }
        }
    }
}

/// Whether a head, and a sized body behind it, are all there.
fn complete(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).map_or(0, |v| v.parse().unwrap());
    body.len() >= length
}

struct World {
    worker: Rc<Worker>,
    published: Arc<Published>,
    asked: Rc<RefCell<Vec<(usize, String)>>>,
}

impl World {
    /// One region per behaviour, one endpoint each; all first attempts go to the first.
    fn new(does: &[Does], change: impl FnOnce(&mut Topology)) -> Self {
        let regions: Vec<_> = ["a", "b", "c"].into_iter().take(does.len()).map(|n| (n, 1)).collect();
        let mut topology = testing::topology(&regions);
        change(&mut topology);
        let pools = topology.pools.len();
        let cells = Arc::new(Cells::build(&topology, None));
        cells.service(ServiceIx(0)).allowance.grant(100.0, 100.0);
        cells.route(RouteIx(0)).hedges.grant(100.0, 100.0);
        let routes = Box::new(Router::build(&topology));
        let config = Arc::new(Compiled { generation: 1, topology, routes, source: Source::default() });
        let pool = PoolView {
            state: State::Serving,
            suspect: false,
            drained: false,
            dead: false,
            limit: 100,
            reserve: Default::default(),
            epoch: 0,
            share: 1.0 / pools as f64,
        };
        let table = TableView {
            slots: vec![Slot { pool: PoolIx(0), upto: u64::MAX }],
            order: (0..pools).map(PoolIx::from).collect(),
            trials: vec![],
            closed: None,
        };
        let view = View { version: 1, config, edge_suspect: false, pools: vec![pool; pools], tables: vec![table] };
        let published = Arc::new(Published::new(Arc::new(Picture { view: Arc::new(view), cells })));
        let (access, _) = access::channel();
        let setup = Setup { published: published.clone(), beats: Arc::new(Beats::new(1)), access, traces: trace::channel().0, spool: None };
        let asked = Rc::new(RefCell::new(Vec::new()));
        let worker = Worker::alone(&setup, Pipes { does: does.into(), asked: asked.clone() });
        Self { worker, published, asked }
    }

    fn client(&self) -> DuplexStream {
        let (near, far) = duplex(64 << 10);
        let guest = Guest::new("192.0.2.1".parse().unwrap(), Arc::new(Settings { config: listener(), tls: None }));
        let worker = self.worker.clone();
        spawn_local(async move { http1(&worker, &guest, Box::new(far)).await });
        near
    }

    fn regions_asked(&self) -> Vec<usize> {
        self.asked.borrow().iter().map(|(region, _)| *region).collect()
    }
}

async fn answer(client: &mut DuplexStream) -> String {
    let mut input = Vec::new();
    while !complete(&input) {
        assert!(matches!(client.read_buf(&mut input).await, Ok(1..)), "closed without an answer: {:?}", String::from_utf8_lossy(&input));
    }
    String::from_utf8(input).unwrap()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: t.test\r\n\r\n";

/// Ask, and how many milliseconds the answer took.
async fn ask(world: &World, request: &[u8]) -> (String, u128) {
    let mut client = world.client();
    let start = clock::now();
    client.write_all(request).await.unwrap();
    let said = answer(&mut client).await;
    (said, clock::now().since(start).as_millis())
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_deadline_is_kept_to_the_millisecond() {
    in_virtual_time(async {
        let world = World::new(&[Does::Nothing, Does::Nothing], |t| {
            t.routes[0].deadline = Duration::from_secs(8);
            t.routes[0].attempt_timeout = Duration::from_secs(6);
        });
        let (said, took) = ask(&world, GET).await;
        assert!(said.starts_with("HTTP/1.1 50"), "{said}");
        assert!((8000..8005).contains(&took), "{took}");
        assert_eq!(world.published.load().cells.pool(PoolIx(0)).inflight(), 0, "whatever ran is out of the gauges");
    });
}

/// A world in which a hedge goes out after 60 ms and an attempt may take 500 ms.
fn hedged(does: &[Does]) -> World {
    World::new(does, |t| {
        t.routes[0].hedge = Some(Hedge { after: HedgeAfter::Fixed(Duration::from_millis(60)), budget: 0.05 });
        t.routes[0].attempt_timeout = Duration::from_millis(500);
    })
}

#[test]
fn a_hedge_answers_for_a_slow_first_attempt_whose_answer_counts_all_the_same() {
    in_virtual_time(async {
        let world = hedged(&[Does::Answer(400), Does::Answer(5)]);
        let (said, took) = ask(&world, GET).await;
        assert!(said.ends_with("\r\n\r\nb"), "{said}");
        assert!((65..72).contains(&took), "{took}");
        assert_eq!(world.regions_asked(), [0, 1]);
        let picture = world.published.load_full();
        assert_eq!(picture.cells.service(ServiceIx(0)).hedges(), (1, 0));
        let pool = picture.cells.pool(PoolIx(0));
        assert_eq!((pool.inflight(), pool.times.hist().count()), (1, 0), "the loser is still at work there");
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!((pool.inflight(), pool.results()[0], pool.results()[6]), (0, ("ok", 1), ("cancelled", 0)));
        assert_eq!(pool.times.hist().count(), 1, "what is normal there includes what was slow");
        assert_eq!((world.worker.lingering.get(), world.worker.upstream.idle(picture.cells.endpoint(EndpointIx(0)).cell_id())), (0, 1));
    });
}

#[test]
fn a_loser_that_hangs_is_told_of_as_any_other() {
    in_virtual_time(async {
        let world = hedged(&[Does::Nothing, Does::Answer(5)]);
        let (said, _) = ask(&world, GET).await;
        assert!(said.ends_with("\r\n\r\nb"), "{said}");
        let picture = world.published.load_full();
        let (mut sampler, cells) = (Sampler::new(&picture.cells), &picture.cells);
        let mut look = || cells.sample(&mut sampler, clock::now(), false, Duration::ZERO).pools.swap_remove(0);
        tokio::time::sleep(Duration::from_millis(420)).await;
        assert_eq!((look().overdue, cells.pool(PoolIx(0)).results()[3]), (1, ("timeout", 0)), "490 ms");
        tokio::time::sleep(Duration::from_millis(30)).await;
        let t = look();
        assert_eq!((t.timeout, t.contradicted, t.inflight, t.waiting, t.overdue, t.late), (1, 1, 0, 0, 0, 0), "its time is over");
    });
}

#[test]
fn a_quiet_endpoint_gets_company() {
    in_virtual_time(async {
        // Overdue after half of the attempt's time, as long as nobody knows what is normal there.
        let world = World::new(&[Does::Nothing, Does::Answer(5)], |t| t.routes[0].attempt_timeout = Duration::from_millis(700));
        let (said, took) = ask(&world, GET).await;
        assert!(said.ends_with("\r\n\r\nb"), "{said}");
        assert!((355..362).contains(&took), "{took}");
        assert_eq!(world.published.load().cells.service(ServiceIx(0)).retries(), 0, "a hedge, not a retry");
    });
}

#[test]
fn the_clock_of_an_upload_starts_with_its_last_byte() {
    in_virtual_time(async {
        let world = World::new(&[Does::Answer(900)], |t| {
            t.routes[0].deadline = Duration::from_secs(1);
            t.routes[0].retry.writes = Writes::Incomplete;
        });
        let mut client = world.client();
        client.write_all(b"POST / HTTP/1.1\r\nHost: t.test\r\nContent-Length: 9000\r\n\r\n").await.unwrap();
        for _ in 0..9 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            client.write_all(&[b'x'; 1000]).await.unwrap();
        }
        assert!(answer(&mut client).await.ends_with("\r\n\r\na"));
        assert_eq!(world.published.load().cells.pool(PoolIx(0)).results()[0], ("ok", 1));
    });
}

#[test]
fn a_client_that_only_closed_its_sending_side_still_gets_an_answer_that_comes_soon() {
    in_virtual_time(async {
        for (after, heard) in [(400, true), (2000, false)] {
            let world = World::new(&[Does::Answer(after)], |_| {});
            let mut client = world.client();
            client.write_all(GET).await.unwrap();
            client.shutdown().await.unwrap();
            let mut said = Vec::new();
            let _ = client.read_to_end(&mut said).await;
            assert_eq!(said.starts_with(b"HTTP/1.1 200"), heard);
            assert_eq!(world.published.load().cells.pool(PoolIx(0)).inflight(), 0);
        }
    });
}

#[test]
fn an_idle_connection_holds_little() {
    in_virtual_time(async {
        let world = World::new(&[Does::Answer(1)], |_| {});
        let (_near, far) = duplex(1024);
        let guest = Guest::new("192.0.2.1".parse().unwrap(), Arc::new(Settings { config: listener(), tls: None }));
        // The task of a connection lives as long as the connection does; everything else it holds while idle is given back.
        let task = std::mem::size_of_val(&http1(&world.worker, &guest, Box::new(far)));
        println!("a connection's task holds {task} bytes");
        assert!(task < 3 << 10, "{task} bytes");
    });
}

fn listener() -> Listener {
    Listener {
        address: "127.0.0.1:0".parse().unwrap(),
        redirect_https: false,
        proxy_protocol: false,
        trusted_proxies: vec![],
        max_connections: 10,
        tls: None,
    }
}

#[test]
fn behind_trusted_proxies_the_client_is_the_last_stranger() {
    let guest = |address: &str| {
        let mut config = listener();
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        Guest::new(address.parse().unwrap(), Arc::new(Settings { config, tls: None }))
    };
    let request = |fields: &str| {
        let mut head = bytes::BytesMut::from(format!("GET / HTTP/1.1\r\nHost: t.test\r\n{fields}\r\n").as_bytes());
        crate::http1::RequestParser::default().parse(&mut head, &Default::default()).unwrap().unwrap()
    };
    for (peer, fields, client) in [
        ("192.0.2.9", "X-Forwarded-For: 198.51.100.1\r\n", "192.0.2.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "X-Forwarded-For: 198.51.100.1\r\n", "198.51.100.1"),
        ("10.0.0.1", "X-Forwarded-For: 6.6.6.6, 198.51.100.1, 10.0.0.2\r\n", "198.51.100.1"),
        ("10.0.0.1", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 198.51.100.1\r\n", "198.51.100.1"),
        ("10.0.0.1", "X-Forwarded-For: junk\r\n", "10.0.0.1"),
    ] {
        assert_eq!(guest(peer).client(&request(fields)), client.parse::<std::net::IpAddr>().unwrap(), "{peer} {fields}");
    }
}
