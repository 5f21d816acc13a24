//! What the operating system asks of us, and allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What somebody outside wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Read the config again.
    Reload,
    /// Drain and leave.
    Leave,
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
        })
    }

    /// The next wish.
    pub async fn next(&mut self) -> Asked {
        match self {
            Self::Process { hangup, terminate, interrupt } => tokio::select! {
                _ = terminate.recv() => Asked::Leave,
                _ = interrupt.recv() => Asked::Leave,
                _ = hangup.recv() => Asked::Reload,
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
