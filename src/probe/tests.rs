use super::*;
use crate::live::testing::{compiled, topology};
use crate::live::{Cells, Message, Picture, inbox};
use crate::model::policy::{Health, HealthKind, JsonExpect};
use crate::model::topology::{Endpoint, Protocol, Topology};
use crate::model::view::{PoolView, TableView};
use std::io::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::timeout;

fn health() -> Health {
    Health {
        kind: HealthKind::Http,
        path: "/healthz".into(),
        host: None,
        port: None,
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        fall: 2,
        rise: 2,
        expect_status: vec![(200, 299)],
        expect_json: vec![],
    }
}

/// An app server that answers every connection's first read with these bytes; `None`: with nothing, ever.
async fn server(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut s, _)) = listener.accept().await {
            let Some(answer) = answer else {
                held.push(s);
                continue;
            };
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = s.read(&mut head).await;
                let _ = s.write_all(answer.as_bytes()).await;
                let _ = s.shutdown().await;
            });
        }
    });
    at
}

async fn ask(health: Health, protocol: Protocol, at: SocketAddr) -> ProbeVerdict {
    let mut service = topology(&[("east", 1)]).services.remove(0);
    service.protocol = protocol;
    let question = Question::new(&health, &service, None, &Endpoint { name: "e".into(), address: at, pool: PoolIx(0) });
    timeout(Duration::from_secs(5), question.ask()).await.expect("it answers")
}

async fn verdict(health: Health, answer: &'static str) -> ProbeVerdict {
    ask(health, Protocol::Http1, server(Some(answer)).await).await
}

#[tokio::test]
async fn an_answer_is_worth_what_it_says() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(verdict(health(), ok).await, ProbeVerdict::Pass);
    assert_eq!(verdict(health(), "HTTP/1.1 204 No Content\r\n\r\n").await, ProbeVerdict::Pass);
    assert_eq!(verdict(health(), "HTTP/1.1 503 Sorry\r\ncontent-length: 0\r\n\r\n").await, ProbeVerdict::Status(503));
    assert!(matches!(verdict(health(), "SSH-2.0-OpenSSH\r\n").await, ProbeVerdict::Body(_)));
    assert!(verdict(health(), "").await.is_hard(), "a connection that is closed without a word");
    assert_eq!(verdict(Health { expect_status: vec![(503, 503)], ..health() }, "HTTP/1.1 503 x\r\n\r\n").await, ProbeVerdict::Pass);
}

#[tokio::test]
async fn a_refused_connection_is_hard_and_named() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let ProbeVerdict::Connect(why) = ask(health(), Protocol::Http1, gone).await else { panic!() };
    assert!(why.contains(&gone.to_string()) && why.to_lowercase().contains("refused"), "{why} {}", ErrorKind::ConnectionRefused);
    assert!(matches!(ask(Health { kind: HealthKind::Tcp, ..health() }, Protocol::Http1, gone).await, ProbeVerdict::Connect(_)));
}

#[tokio::test]
async fn tcp_asks_for_a_connection_only_and_a_port_may_be_another() {
    let at = server(None).await;
    assert_eq!(ask(Health { kind: HealthKind::Tcp, ..health() }, Protocol::Http1, at).await, ProbeVerdict::Pass);
    let elsewhere = SocketAddr::new(at.ip(), 1);
    assert_eq!(
        ask(Health { kind: HealthKind::Tcp, port: Some(at.port()), ..health() }, Protocol::Http1, elsewhere).await,
        ProbeVerdict::Pass
    );
}

#[tokio::test]
async fn json_is_held_to_what_is_expected() {
    let expect = |pointer: &str, equals: Option<serde_json::Value>| Health {
        expect_json: vec![JsonExpect { pointer: pointer.into(), equals }],
        ..health()
    };
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n12\r\n{\"db\":{\"up\":true}}\r\n0\r\n\r\n";
    assert_eq!(verdict(expect("/db/up", Some(true.into())), answer).await, ProbeVerdict::Pass);
    assert_eq!(verdict(expect("/db", None), answer).await, ProbeVerdict::Pass);
    assert_eq!(verdict(expect("/db/up", Some(false.into())), answer).await, ProbeVerdict::Body("/db/up is true, not false".into()));
    assert_eq!(verdict(expect("/cache", None), answer).await, ProbeVerdict::Body("/cache is missing".into()));
    assert!(matches!(verdict(expect("/db", None), "HTTP/1.1 200 OK\r\n\r\nhello").await, ProbeVerdict::Body(_)));
    assert!(matches!(verdict(expect("/db", None), "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{").await, ProbeVerdict::Body(_)));
    let endless: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\n\r\n[{}", "1,".repeat(64 << 10)).into_boxed_str());
    assert!(matches!(verdict(expect("/0", None), endless).await, ProbeVerdict::Body(why) if why.contains("65536")));
}

#[tokio::test]
async fn grpc_asks_the_health_service() {
    async fn grpc(message: &'static [u8]) -> ProbeVerdict {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut c = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            while let Some(Ok((request, mut respond))) = c.accept().await {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                body.send_data(message.into(), false).unwrap();
                body.send_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect()).unwrap();
            }
        });
        ask(Health { kind: HealthKind::Grpc, ..health() }, Protocol::H2, at).await
    }
    assert_eq!(grpc(&[0, 0, 0, 0, 2, 8, 1]).await, ProbeVerdict::Pass);
    assert_eq!(grpc(&[0, 0, 0, 0, 2, 8, 2]).await, ProbeVerdict::Body("grpc health status 2, not 1 (SERVING)".into()));
    assert!(matches!(grpc(&[0, 0, 0, 0, 0]).await, ProbeVerdict::Body(_)));
}

/// Endpoints of one service in two regions, probed; and what the controller would hear.
struct Rig {
    t: Topology,
    published: Arc<Published>,
    heard: tokio::sync::mpsc::UnboundedReceiver<Message>,
    inbox: Inbox,
}

fn view(generation: u64, t: &Topology, suspect: bool) -> View {
    let pool = |i| PoolView {
        state: State::Serving,
        suspect: suspect && i == 0,
        drained: false,
        dead: false,
        limit: 100,
        reserve: Default::default(),
        epoch: 0,
        share: 0.5,
    };
    View {
        version: 1,
        config: compiled(generation, t.clone()),
        edge_suspect: false,
        pools: (0..t.pools.len()).map(pool).collect(),
        tables: vec![TableView::default()],
    }
}

impl Rig {
    fn new(at: [SocketAddr; 2], health: Health) -> Self {
        let mut t = topology(&[("east", 1), ("west", 1)]);
        t.services[0].health = Some(health);
        t.endpoints.iter_mut().zip(at).for_each(|(e, at)| e.address = at);
        let cells = Arc::new(Cells::build(&t, None));
        let published = Arc::new(Published::new(Arc::new(Picture { view: Arc::new(view(1, &t, false)), cells })));
        let (inbox, heard) = inbox();
        Self { t, published, heard, inbox }
    }
    fn show(&self, generation: u64, suspect: bool) {
        let cells = self.published.load_full().cells.clone();
        self.published.store(Arc::new(Picture { view: Arc::new(view(generation, &self.t, suspect)), cells }));
    }
    fn start(&self) {
        spawn_local(run(self.published.clone(), self.inbox.clone()));
    }
    async fn next(&mut self, endpoint: u32) -> Probe {
        let wanted = async {
            loop {
                match self.heard.recv().await {
                    Some(Message::Probe(p)) if p.endpoint.0 == endpoint => return p,
                    Some(_) => {}
                    None => panic!("the prober lives"),
                }
            }
        };
        timeout(Duration::from_secs(10), wanted).await.expect("a probe comes")
    }
}

const OK: Option<&str> = Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

#[tokio::test]
async fn a_hanging_endpoint_delays_nobody() {
    LocalSet::new()
        .run_until(async {
            let mut rig = Rig::new([server(None).await, server(OK).await], health());
            rig.start();
            let mut good = 0;
            loop {
                match timeout(Duration::from_secs(10), rig.heard.recv()).await.unwrap().unwrap() {
                    Message::Probe(p) if p.endpoint.0 == 1 => good += u32::from(p.verdict.passed()),
                    Message::Probe(p) => {
                        assert_eq!((p.verdict, p.took >= Duration::from_millis(500)), (ProbeVerdict::Timeout, true));
                        break;
                    }
                    _ => {}
                }
            }
            // Ten fit into the half second; the machine that tests may be busy.
            assert!(good >= 4, "{good}");
        })
        .await;
}

#[tokio::test]
async fn suspicion_of_one_pool_hurries_the_questions_to_all() {
    LocalSet::new()
        .run_until(async {
            let slow = Health { interval: Duration::from_secs(3600), timeout: Duration::from_secs(30), ..health() };
            let mut rig = Rig::new([server(None).await, server(OK).await], slow);
            rig.start();
            assert!(rig.next(1).await.verdict.passed());
            rig.show(1, true);
            // Without hurry the next one would come in an hour.
            assert!(rig.next(1).await.verdict.passed());
            assert!(rig.next(1).await.verdict.passed());
        })
        .await;
}

#[tokio::test]
async fn a_service_is_hot_while_it_changes_or_is_closed_but_not_where_it_is_drained() {
    LocalSet::new()
        .run_until(async {
            let rig = Rig::new([server(OK).await, server(OK).await], health());
            let config = compiled(1, rig.t.clone());
            let (inbox, dice) = (rig.inbox.clone(), Dice::new(1));
            let mut rounds = Rounds { inbox, dice, generation: 0, posts: HashMap::new(), heat: Vec::new() };
            rounds.follow(&config);
            let now = clock::now();
            let mut hot = |view: &View, now| {
                let again = rounds.heat(view, now);
                let hot = rounds.posts.values().filter(|s| s.post.hot.get() == Some(HOT_EVERY)).count();
                (hot, again)
            };
            let calm = view(1, &rig.t, false);
            assert_eq!(hot(&calm, now), (0, Moment::FAR));
            assert_eq!(hot(&view(1, &rig.t, true), now).0, 2, "the sibling's endpoints, too");
            let cools = now + HOT_FOR;
            assert_eq!(hot(&calm, now), (2, cools), "for a while after the change");
            assert_eq!(hot(&calm, cools), (0, Moment::FAR));
            let mut closed = calm.clone();
            closed.tables[0].closed = Some(crate::model::view::Closed::NoRegion);
            assert_eq!(hot(&closed, cools), (2, Moment::FAR));
            closed.pools.iter_mut().for_each(|p| p.drained = true);
            assert_eq!(hot(&closed, cools), (0, Moment::FAR));
        })
        .await;
}

#[tokio::test]
async fn a_new_config_takes_endpoints_over_under_their_new_numbers() {
    LocalSet::new()
        .run_until(async {
            let mut rig = Rig::new([server(OK).await, server(OK).await], health());
            rig.start();
            assert_eq!(rig.next(0).await.generation, 1);
            rig.t.services[0].health = None;
            rig.show(2, false);
            // What was under way may still be told, with the generation it belongs to.
            while timeout(Duration::from_millis(300), rig.heard.recv()).await.is_ok() {}
            rig.t.services[0].health = Some(health());
            rig.show(3, false);
            assert_eq!(rig.next(1).await.generation, 3);
        })
        .await;
}
