//! What the operating system asks of us, and allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What somebody outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Read the config again.
    Reload,
    /// Drain and leave.
    Leave,
    /// Start the program anew, which then takes over.
    Upgrade,
}

/// Where wishes come from.
pub enum Signals {
    /// The process's own.
    Process {
        /// SIGHUP.
        hangup: Signal,
        /// SIGTERM.
        terminate: Signal,
        /// SIGINT.
        interrupt: Signal,
        /// SIGUSR2.
        upgrade: Signal,
    },
    /// A program that runs the proxy inside.
    Inside(mpsc::UnboundedReceiver<Asked>),
}

impl From<mpsc::UnboundedReceiver<Asked>> for Signals {
    fn from(asked: mpsc::UnboundedReceiver<Asked>) -> Self {
        Self::Inside(asked)
    }
}

impl Signals {
    /// Takes the process's signals over. Needs a runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self::Process {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Asked {
        match self {
            Self::Process { hangup, terminate, interrupt, upgrade } => tokio::select! {
                _ = terminate.recv() => Asked::Leave,
                _ = interrupt.recv() => Asked::Leave,
                _ = hangup.recv() => Asked::Reload,
                _ = upgrade.recv() => Asked::Upgrade,
            },
            // Whoever ran us has gone without a word.
            Self::Inside(asked) => asked.recv().await.unwrap_or(Asked::Leave),
        }
    }
}

/// Raises the limit of open files to what we may have at most. Every connection is one.
pub fn raise_file_limit() -> rustix::io::Result<u64> {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })?;
    Ok(now.maximum.unwrap_or(u64::MAX))
}

/// Starts the program again as it was started, from wherever its file is now, to take over from this process. The child reports to systemd as
/// the service's new main process ([`ready`]).
pub fn start_successor() -> std::io::Result<u32> {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_else(|| "evenkeel".into());
    let mut command = std::process::Command::new(program);
    command.args(words.by_ref().filter(|w| w != "--takeover")).arg("--takeover");
    // Whoever holds sockets of systemd's hands them over itself.
    command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
    let mut child = command.spawn()?;
    let id = child.id();
    // Should it fail to start, somebody has to hear that it ended.
    std::thread::Builder::new().name("successor".into()).spawn(move || {
        if let Ok(status) = child.wait() {
            tracing::error!("the successor ended at once ({status}): this process goes on");
        }
    })?;
    Ok(id)
}

/// Tells systemd (`Type=notify`) that we serve, and which process is the service's from now on. Without systemd nothing happens.
pub fn ready() {
    notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
}

/// Tells systemd that we are about to leave.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::warn!("systemd cannot be told: {e}");
    }
}
