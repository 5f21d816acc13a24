//! Three simulated regions, an open-loop load and the proxy in one process, so that a newcomer sees a region
//! die before writing a config. `--once` plays a scripted outage and ends with a summary.
//!
//! Everything stays on loopback: the regions' app servers on 127.1.0.1, 127.2.0.1 and 127.3.0.1, the proxy and
//! the controls on 127.0.0.1. The proxy is the real one, with a real config file that is left to look at.

mod load;
mod origin;
mod tell;

use crate::cli::client::Admin;
use crate::cli::screen;
use crate::clock;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use load::{Load, Second};
use origin::{Fault, Region};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tell::Teller;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

/// How the demo is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Play the scripted outage, print a summary, and leave.
    pub once: bool,
    /// Requests per second.
    pub rate: u32,
    /// Leave after this time; `None`: when interrupted.
    pub seconds: Option<u64>,
    /// A live screen instead of lines.
    pub screen: bool,
}

/// The scripted outage of `--once`: seconds after the start, region, fault, and what to say.
const SCRIPT: [(u64, &str, Fault, &str); 4] = [
    (4, "east", Fault::Blackout, "east loses power: connections hang, nothing answers"),
    (12, "east", Fault::None, "power is back in east"),
    (16, "west", Fault::Errors, "west has a bad day: every second answer is a 503, its health checks pass"),
    (22, "west", Fault::None, "west is mended"),
];
/// When `--once` ends, seconds.
const SCRIPT_END: u64 = 26;

/// Runs the demo. True: fine; false: `--once` found that users were hurt more than it promises.
pub fn run(options: &Options) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(play(options))
}

async fn play(options: &Options) -> Result<bool, String> {
    let regions = Arc::new(start_regions().await.map_err(|e| format!("the simulated regions did not start: {e}"))?);
    let (http, admin, controls) = (free_port(8080), free_port(9900), free_port(9901));
    let folder = folder()?;
    let config = folder.join("demo.yaml");
    std::fs::write(&config, config_text(&regions, http, admin, &folder)).map_err(|e| format!("{}: {e}", config.display()))?;

    let path = config.clone();
    // It brings up runtimes of its own, which this one's thread must not wait for.
    let proxy = tokio::task::spawn_blocking(move || crate::run::spawn(&path)).await.map_err(|e| e.to_string())??;
    reachable(http).await?;
    let controls_at = serve_controls(regions.clone(), controls, local(admin)).await.map_err(|e| format!("127.0.0.1:{controls}: {e}"))?;
    let load = Load::new(local(http));
    tokio::spawn(load.clone().run(options.rate));

    if options.screen {
        let about = format!("dashboard http://{}/ | break regions http://{controls_at}/ | config {}", local(admin), config.display());
        let done = show(local(admin), controls_at, about).await;
        leave(&proxy).await;
        println!("The config is left to look at: {}", config.display());
        return done;
    }
    let teller = Teller::new(&config, local(http), local(admin), controls_at);
    teller.welcome(options.once);
    let mut seconds: Vec<Second> = Vec::new();
    let mut every = interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every.tick().await;
    load.take();
    let end = if options.once { Some(SCRIPT_END) } else { options.seconds };
    for now in 0u64.. {
        if options.once {
            for (_, name, fault, says) in SCRIPT.iter().filter(|s| s.0 == now) {
                set_fault(&regions, name, *fault);
                teller.say(says);
            }
        }
        tokio::select! {
            _ = every.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        let second = load.take();
        teller.second(now + 1, &second, &regions);
        seconds.push(second);
        if end.is_some_and(|end| now + 1 >= end) {
            break;
        }
    }
    let hurt = if options.once { teller.summary(&seconds) } else { false };
    leave(&proxy).await;
    Ok(!hurt)
}

/// The live screen, on a thread of its own: it waits for keys.
async fn show(admin: SocketAddr, controls: SocketAddr, about: String) -> Result<bool, String> {
    let admin = Admin::at(format!("http://{admin}"), None);
    let faults = screen::Faults { url: format!("http://{controls}"), about };
    let shown = tokio::task::spawn_blocking(move || screen::run(admin, Some(faults))).await.map_err(|e| e.to_string())?;
    shown.map(|_| true).map_err(|f| f.what)
}

async fn leave(proxy: &crate::run::Proxy) {
    proxy.stop();
    let _ = timeout(Duration::from_secs(3), async {
        while !proxy.stopped() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn start_regions() -> std::io::Result<Vec<Region>> {
    let ms = Duration::from_millis;
    Ok(vec![
        Region::start("east", [127, 1, 0, 1], 3, ms(2)).await?,
        Region::start("west", [127, 2, 0, 1], 3, ms(12)).await?,
        Region::start("eu", [127, 3, 0, 1], 3, ms(40)).await?,
    ])
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The wanted port where it is free, else any.
fn free_port(wanted: u16) -> u16 {
    let bind = |port| std::net::TcpListener::bind(local(port)).and_then(|l| l.local_addr()).map(|a| a.port());
    bind(wanted).or_else(|_| bind(0)).unwrap_or(wanted)
}

fn folder() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("evenkeel-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// The demo's config: what a small company would write.
fn config_text(regions: &[Region], http: u16, admin: u16, folder: &FsPath) -> String {
    let endpoints = |name: &str| {
        let region = regions.iter().find(|r| r.name == name);
        region.map(|r| r.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")).unwrap_or_default()
    };
    include_str!("demo.yaml")
        .replace("{http}", &http.to_string())
        .replace("{admin}", &admin.to_string())
        .replace("{state}", &folder.display().to_string())
        .replace("{east}", &endpoints("east"))
        .replace("{west}", &endpoints("west"))
        .replace("{eu}", &endpoints("eu"))
}

async fn reachable(http: u16) -> Result<(), String> {
    let end = clock::now() + Duration::from_secs(10);
    while clock::now() < end {
        if tokio::net::TcpStream::connect(local(http)).await.is_ok() {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Err(format!("the proxy does not listen on 127.0.0.1:{http} after 10 s"))
}

fn set_fault(regions: &[Region], name: &str, fault: Fault) -> bool {
    let region = regions.iter().find(|r| r.name == name);
    if let Some(region) = region {
        region.fail(fault);
    }
    region.is_some()
}

/// What ails each region, by the word that brings it about.
fn faults(regions: &[Region]) -> BTreeMap<&'static str, &'static str> {
    let word = |fault| Fault::NAMES.iter().find(|(_, f)| *f == fault).map_or("heal", |(word, _)| *word);
    regions.iter().map(|r| (r.name, word(r.fault()))).collect()
}

/// `POST /REGION/FAULT` on loopback, so that a shell can break things, and a page with buttons that do it.
async fn serve_controls(regions: Arc<Vec<Region>>, port: u16, dashboard: SocketAddr) -> std::io::Result<SocketAddr> {
    let words = Fault::NAMES.map(|(word, _)| word).join("|");
    let usage = format!("POST /REGION/FAULT with REGION one of east|west|eu and FAULT one of {words}\n");
    let page = include_str!("controls.html").replace("{dashboard}", &format!("http://{dashboard}/"));
    let app = axum::Router::new()
        .route("/", get(move || async move { Html(page) }))
        .route("/faults", get(|State(regions): State<Arc<Vec<Region>>>| async move { Json(faults(&regions)) }))
        .route(
            "/{region}/{fault}",
            post(move |State(regions): State<Arc<Vec<Region>>>, Path((name, word)): Path<(String, String)>| async move {
                match Fault::NAMES.iter().find(|(w, _)| *w == word) {
                    Some((_, fault)) if set_fault(&regions, &name, *fault) => (StatusCode::OK, format!("{name}: {word}\n")),
                    _ => (StatusCode::NOT_FOUND, usage),
                }
            }),
        )
        .with_state(regions);
    let listener = tokio::net::TcpListener::bind(local(port)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
