//! Replacing the process without a moment in which nobody listens.
//!
//! ```text
//! successor                                   predecessor (holds state_dir/takeover.sock)
//!   connect, "evenkeel takeover 1" ───────────▶ same user? then
//!   ◀─────────────── names and descriptors (SCM_RIGHTS) of all listening sockets
//!   starts on them; both accept for a moment
//!   "ready" ─────────────────────────────────▶ stops accepting, drains, leaves
//! ```
//!
//! A socket and its queue of connections belong to the kernel and outlive either process, so nothing is refused in between. Until
//! "ready" nothing has changed for the predecessor: a successor that fails to start leaves it serving. Connections are not handed over;
//! those that are open come to their end in the old process, within `edge.drain_timeout`.
//!
//! The other way to sockets that outlive a process is systemd's ([`activated`]): it holds them itself.

use crate::edge::listener::Listeners;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;

const SOCKET: &str = "takeover.sock";
const HELLO: &str = "evenkeel takeover 1";
const READY: &str = "ready";
/// The most sockets that one message carries; the kernel's own limit is 253.
const MOST: usize = 250;
/// For each step of the talk.
const STEP: Duration = Duration::from_secs(5);
/// How long a successor may take to start.
const START: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Use {
    Listener,
    Admin,
}

#[derive(Debug, Serialize, Deserialize)]
struct Named {
    r#for: Use,
    /// As configured.
    address: SocketAddr,
}

/// Sockets that listen already.
#[derive(Debug, Default)]
pub struct Estate {
    /// For clients, by the address they were configured with.
    pub listeners: Vec<(SocketAddr, TcpListener)>,
    /// For the admin API.
    pub admin: Option<TcpListener>,
    /// Who is to hear that we are ready.
    pub predecessor: Option<Predecessor>,
}

/// The process whose sockets were taken over, and which still serves.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// It may go.
    pub fn relieve(mut self) {
        if let Err(e) = self.0.write_all(format!("{READY}\n").as_bytes()) {
            tracing::warn!("the process before this one could not be told to leave: {e}; stop it by hand");
        }
    }
}

/// Asks whoever holds the state directory for its sockets. `None`: nobody does.
pub fn ask(state_dir: &Path) -> Result<Option<Estate>, String> {
    let path = state_dir.join(SOCKET);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let told = (|| {
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        stream.write_all(format!("{HELLO}\n").as_bytes())?;
        receive(&stream)
    })();
    let (text, sockets) =
        told.map_err(|e: io::Error| format!("{}: the other process did not hand its sockets over: {e}", path.display()))?;
    let names: Vec<Named> = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if names.len() != sockets.len() {
        return Err(format!("{}: {} sockets were announced, {} came", path.display(), names.len(), sockets.len()));
    }
    let mut estate = Estate { predecessor: Some(Predecessor(stream)), ..Estate::default() };
    for (name, socket) in names.into_iter().zip(sockets) {
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true).map_err(|e| format!("{}: {e}", name.address))?;
        match name.r#for {
            Use::Listener => estate.listeners.push((name.address, socket)),
            Use::Admin => estate.admin = Some(socket),
        }
    }
    Ok(Some(estate))
}

/// Sockets that systemd opened for us (`LISTEN_FDS`). Each goes to the listener (or the admin API) of its address.
pub fn activated(admin: Option<SocketAddr>) -> io::Result<Estate> {
    let mut given = listenfd::ListenFd::from_env();
    let mut estate = Estate::default();
    for i in 0..given.len() {
        let Some(socket) = given.take_tcp_listener(i)? else { continue };
        socket.set_nonblocking(true)?;
        let at = socket.local_addr()?;
        if admin == Some(at) {
            estate.admin = Some(socket);
        } else {
            estate.listeners.push((at, socket));
        }
    }
    Ok(estate)
}

/// The place where a successor may ask.
pub struct Counter(UnixListener);

impl Counter {
    /// Opens it. Replaces that of a process before this one. Needs a runtime.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(state_dir)?;
        let new = state_dir.join(format!("{SOCKET}.{}", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        std::fs::rename(&new, state_dir.join(SOCKET))?;
        Ok(Self(listener))
    }

    /// Ready once a successor has the sockets and serves.
    pub async fn relieved(self, listeners: Arc<Listeners>, admin: Option<Arc<(SocketAddr, TcpListener)>>) {
        loop {
            let Ok((stream, _)) = self.0.accept().await else {
                tokio::time::sleep(STEP).await;
                continue;
            };
            // The file's mode says the same; this also holds where the directory was opened up by somebody.
            let uid = stream.peer_cred().map(|c| c.uid());
            if !uid.is_ok_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw()) {
                tracing::warn!("somebody of another user asked for the listening sockets, and was refused");
                continue;
            }
            let (listeners, admin) = (listeners.clone(), admin.clone());
            let talk = tokio::task::spawn_blocking(move || {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                hand_over(stream, &listeners, admin.as_deref())
            });
            match talk.await {
                Ok(Ok(())) => return,
                Ok(Err(e)) => {
                    tracing::warn!("a successor asked for the listening sockets and did not come to serve ({e}): this process goes on")
                }
                Err(e) => tracing::error!("handing over the listening sockets: {e}"),
            }
        }
    }
}

fn hand_over(stream: UnixStream, listeners: &Listeners, admin: Option<&(SocketAddr, TcpListener)>) -> io::Result<()> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    let mut from = BufReader::new(stream.try_clone()?);
    if line(&mut from)? != HELLO {
        return Err(wrong("not the words of a successor of this version"));
    }
    let doors = listeners.doors();
    let mut names: Vec<_> = doors.iter().map(|d| Named { r#for: Use::Listener, address: d.address }).collect();
    let mut sockets: Vec<BorrowedFd<'_>> = doors.iter().map(|d| d.as_fd()).collect();
    if let Some((address, socket)) = admin {
        names.push(Named { r#for: Use::Admin, address: *address });
        sockets.push(socket.as_fd());
    }
    if sockets.len() > MOST {
        return Err(wrong("more listening sockets than one message carries"));
    }
    send(&stream, &serde_json::to_vec(&names)?, &sockets)?;
    stream.set_read_timeout(Some(START))?;
    if line(&mut from)? == READY { Ok(()) } else { Err(wrong("it ended before it was ready")) }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    io::Read::take(from, 1024).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// The text's length goes first, so that the reader knows when it has all of it.
fn send(stream: &UnixStream, text: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(sockets));
    }
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
    rustix::net::sendmsg(stream, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    (&*stream).write_all(text)
}

fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let got = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes != 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            sockets.extend(more);
        }
    }
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(stream, u64::from(u32::from_be_bytes(length).min(1 << 20))), &mut text)?;
    Ok((text, sockets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn sockets_travel_with_their_names() {
        let (a, b) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        send(&a, b"names", &[listener.as_fd()]).unwrap();
        drop(listener);
        let (text, mut sockets) = receive(&b).unwrap();
        assert_eq!((text.as_slice(), sockets.len()), (&b"names"[..], 1));
        let inherited = TcpListener::from(sockets.remove(0));
        let mut client = std::net::TcpStream::connect(at).unwrap();
        inherited.accept().unwrap().0.write_all(b"hi").unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hi");
    }

    #[test]
    fn nobody_at_the_counter_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(dir.path()).unwrap().is_none());
        // A process that crashed leaves its socket behind.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        assert!(ask(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_successor_that_dies_leaves_all_as_it_was() {
        let (a, b) = UnixStream::pair().unwrap();
        (&b).write_all(format!("{HELLO}\n").as_bytes()).unwrap();
        drop(b);
        assert!(hand_over(a, &Listeners::new(), None).is_err());
        let (a, mut b) = UnixStream::pair().unwrap();
        b.write_all(format!("{HELLO}\n{READY}\n").as_bytes()).unwrap();
        hand_over(a, &Listeners::new(), None).unwrap();
    }
}
