use super::*;
use crate::live::testing::{compiled, topology};
use crate::live::{Message, inbox};
use crate::model::event::Event;
use crate::model::outcome::Outcome;
use crate::model::signal::{Order, Refused};
use crate::model::view::{Live, State};
use std::path::Path;
use tokio::sync::broadcast::Receiver;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{advance, timeout};

struct Bench {
    control: Option<Control>,
    letters: Option<UnboundedReceiver<Message>>,
    inbox: Inbox,
    published: Arc<Published>,
    events: Receiver<Arc<Event>>,
}

fn bench(dir: &Path) -> Bench {
    let (inbox, letters) = inbox();
    let events = inbox.events();
    let store = Store::start(dir.to_owned()).unwrap();
    let config = compiled(1, topology(&[("east", 3), ("west", 3)]));
    let control = Control::new(config, inbox.clone(), Arc::new(Beats::new(0)), store, Dice::new(1));
    Bench { published: control.published(), control: Some(control), letters: Some(letters), inbox, events }
}

impl Bench {
    fn run(&mut self) {
        tokio::spawn(self.control.take().unwrap().run(self.letters.take().unwrap()));
    }
    async fn event(&mut self, wanted: impl Fn(&EventKind) -> bool) -> Arc<Event> {
        let next = async {
            loop {
                let e = self.events.recv().await.expect("the control task lives");
                if wanted(&e.kind) {
                    return e;
                }
            }
        };
        timeout(Duration::from_secs(60), next).await.expect("the event comes")
    }
}

fn order(order: Order) -> Command {
    Command { by: Actor::Operator("ada".into()), order }
}

fn drain_east() -> Command {
    order(Order::Drain {
        region: RegionIx(0),
        reason: "works on the grid".into(),
        over: Duration::ZERO,
        lasting: Some(Duration::from_secs(3600)),
    })
}

#[tokio::test(start_paused = true)]
async fn a_silent_region_is_avoided_within_a_fraction_of_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = bench(dir.path());
    b.run();
    b.event(|k| matches!(k, EventKind::Started { .. })).await;
    let picture = b.published.load_full();
    let cells = &picture.cells;
    for i in 0..2000u32 {
        advance(Duration::from_millis(5)).await;
        let mut f = cells.begin(RouteIx(0), EndpointIx(i % 6), clock::now(), false);
        f.first_byte(clock::now());
        f.end(clock::now(), Outcome::Ok);
    }
    let mut waiting: Vec<_> =
        (0..3).flat_map(|e| (0..4).map(move |_| e)).map(|e| cells.begin(RouteIx(0), EndpointIx(e), clock::now(), false)).collect();
    let began = clock::now();
    waiting.iter_mut().for_each(|f| f.overdue());
    b.event(|k| matches!(k, EventKind::Suspect { on: true, .. })).await;
    assert!(clock::now().since(began) < Duration::from_millis(60), "{:?}", clock::now().since(began));
    assert!(b.published.load().view.pools[0].suspect);
    waiting.iter_mut().for_each(|f| f.late());
    // The other region goes on answering: that is the contrast a trip needs.
    let tripped = async {
        let answered = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                cells.begin(RouteIx(0), EndpointIx(3), clock::now(), false).end(clock::now(), Outcome::Ok);
            }
        };
        tokio::select! {
            _ = b.event(|k| matches!(k, EventKind::Pool { to: State::Tripped, .. })) => clock::now(),
            () = answered => unreachable!(),
        }
    };
    let took = tripped.await.since(began);
    assert!(took >= Duration::from_millis(250) && took < Duration::from_millis(350), "{took:?}");
    let seen = b.published.load_full();
    assert_eq!((seen.view.pools[0].state, seen.view.pools[1].state), (State::Tripped, State::Serving));
    assert!(seen.view.pools[0].epoch > picture.view.pools[0].epoch, "its connections are dropped");
}

#[tokio::test(start_paused = true)]
async fn orders_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = bench(dir.path());
    b.run();
    b.inbox.command(drain_east()).await.unwrap();
    b.inbox.command(order(Order::Trip { pool: PoolIx(1), reason: "test".into() })).await.unwrap();
    b.inbox.command(order(Order::Freeze { on: true })).await.unwrap();
    b.inbox.leaving().await;
    assert!(dir.path().join("last-good.yaml").exists());

    let mut again = bench(dir.path());
    let view = again.published.load_full().view.clone();
    assert!(view.pools[0].drained, "before the first request");
    assert_eq!(view.pools[1].state, State::Tripped);
    again.run();
    let drain = again.event(|k| matches!(k, EventKind::Drain { on: true, .. })).await;
    assert_eq!(drain.by, Actor::Operator("ada".into()));
    assert_eq!(again.inbox.status().await.unwrap().mode, "frozen");
    again.inbox.command(order(Order::Undrain { region: RegionIx(0) })).await.unwrap();
    again.inbox.command(order(Order::Freeze { on: false })).await.unwrap();
    again.inbox.command(order(Order::Reset { pool: PoolIx(1) })).await.unwrap();
    again.inbox.leaving().await;

    let third = bench(dir.path());
    let view = third.published.load_full().view.clone();
    assert!(!view.pools[0].drained && view.pools[1].state == State::Serving);
}

#[tokio::test(start_paused = true)]
async fn a_drill_does_not_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = bench(dir.path());
    b.run();
    b.inbox.command(Command { by: Actor::Drill("d1".into()), order: drain_east().order }).await.unwrap();
    b.inbox.command(order(Order::Freeze { on: true })).await.unwrap();
    assert!(b.published.load().view.pools[0].drained);
    b.inbox.leaving().await;
    let mut again = bench(dir.path());
    assert!(!again.published.load().view.pools[0].drained);
    again.run();
    assert_eq!(again.inbox.status().await.unwrap().mode, "frozen", "what operators ordered does");
}

#[tokio::test(start_paused = true)]
async fn orders_that_cannot_be_understood_are_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("overrides.json"), "{ torn").unwrap();
    let b = bench(dir.path());
    assert!(!b.published.load().view.pools[0].drained);
    std::fs::write(
        dir.path().join("overrides.json"),
        r#"{"drains":{"atlantis":{"by":{"actor":"operator","name":"ada"},"reason":"flood"}}}"#,
    )
    .unwrap();
    assert!(!bench(dir.path()).published.load().view.pools[0].drained);
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_view_and_cells_as_one_and_keeps_what_has_the_same_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = bench(dir.path());
    b.run();
    b.inbox.command(drain_east()).await.unwrap();
    let old = b.published.load_full();
    let flight = old.cells.begin(RouteIx(0), EndpointIx(0), clock::now(), false);
    let changes = b.inbox.reload(compiled(2, topology(&[("north", 1), ("east", 3)])), Actor::File).await.unwrap();
    assert!(!changes.is_empty());
    let new = b.published.load_full();
    assert_eq!((new.view.config.generation, new.view.pools.len()), (2, 2));
    assert!(new.view.pools[1].drained && !new.view.pools[0].drained);
    assert_eq!(new.cells.pool_inflight(PoolIx(1)), 1);
    flight.end(clock::now(), Outcome::Ok);
    assert_eq!(new.cells.pool_inflight(PoolIx(1)), 0);
    b.event(|k| matches!(k, EventKind::ConfigApplied { generation: 2, .. })).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_config_is_on_record_until_a_good_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut b = bench(dir.path());
    b.run();
    b.inbox.rejected(Actor::File, vec!["evenkeel.yaml:3:1: no".into()]);
    b.event(|k| matches!(k, EventKind::ConfigRejected { .. })).await;
    assert_eq!(b.inbox.status().await.unwrap().config.last_error.as_deref(), Some("evenkeel.yaml:3:1: no"));
    b.inbox.reload(compiled(2, topology(&[("east", 3), ("west", 3)])), Actor::Operator("ann".into())).await.unwrap();
    assert_eq!(b.inbox.status().await.unwrap().config.last_error, None);
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_the_end_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let b = bench(dir.path());
    drop((b.control, b.letters));
    assert_eq!(b.inbox.command(drain_east()).await, Err(Refused::Leaving));
    assert!(b.inbox.status().await.is_none());
    b.inbox.leaving().await;
}

#[tokio::test(start_paused = true)]
async fn our_own_stall_is_told_as_lateness() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, _letters) = inbox();
    let beats = Arc::new(Beats::new(2));
    let store = Store::start(dir.path().to_owned()).unwrap();
    let control = Control::new(compiled(1, topology(&[("east", 1)])), inbox, beats.clone(), store, Dice::new(1));
    let now = clock::now();
    beats.beat(0, now);
    beats.beat(1, now - Duration::from_millis(200));
    assert_eq!(control.late(now, Duration::from_millis(30)), Duration::from_millis(188));
    beats.gone(1);
    assert_eq!(control.late(now, Duration::from_millis(30)), Duration::from_millis(28));
    assert_eq!(control.late(now, Duration::from_millis(1)), Duration::ZERO);
}
