//! The way from a command to a running proxy: one request over plain HTTP to its admin API.

use super::{Failure, Verdict};
use crate::admin::wire::{Done, Problem, Status};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;

/// The proxy answers within milliseconds, a reload of a huge config within a second or two.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(5);

/// Which proxy, and with which token.
#[derive(Clone, clap::Args)]
pub struct Admin {
    /// Its admin API.
    #[arg(long = "admin", value_name = "URL", env = "EVENKEEL_ADMIN", default_value = "http://127.0.0.1:9900")]
    url: String,
    /// A file with a token of its config's `admin.tokens`.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// What came back.
pub enum Reply<T> {
    /// What was asked for.
    Good(T),
    /// It was understood, and refused: exit 1.
    Refused(Problem),
}

impl Admin {
    /// The API at this address.
    pub fn at(url: String, token_file: Option<PathBuf>) -> Self {
        Self { url, token_file }
    }
    /// Whether an Evenkeel is there.
    pub fn answers(&self) -> bool {
        self.text("/livez").is_ok_and(|page| page.trim() == "ok")
    }
    /// Reads something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        match self.call(Method::GET, path, &())? {
            Reply::Good(value) => Ok(value),
            Reply::Refused(p) => Err(Failure::new(p.detail, "")),
        }
    }
    /// How things stand.
    pub fn status(&self) -> Result<Status, Failure> {
        self.get("/v1/status")
    }
    /// Changes something, and says what changed.
    pub fn change(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Verdict, Failure> {
        match self.call::<Done>(method, path, body)? {
            Reply::Good(done) if done.changes.is_empty() => super::say("nothing to change: it was so already")?,
            Reply::Good(done) => super::say(done.changes.join("\n"))?,
            Reply::Refused(problem) => {
                let style = super::style::Style::of(&std::io::stderr());
                eprintln!("{}: {}", style.red("refused"), problem.detail);
                return Ok(Verdict::Bad);
            }
        }
        Ok(Verdict::Good)
    }

    /// Reads a page.
    pub fn text(&self, path: &str) -> Result<String, Failure> {
        let (status, answer) = self.exchange(Method::GET, path, Vec::new())?;
        if status.is_success() {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
        Err(failure(status, self.problem(status, &answer)?))
    }

    /// One request. Conflicts and files with problems are answers; whatever else is no success could not run.
    pub fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Reply<T>, Failure> {
        let body = if method == Method::GET { Vec::new() } else { serde_json::to_vec(body).map_err(|e| Failure::new(e, ""))? };
        let (status, answer) = self.exchange(method, path, body)?;
        if status.is_success() {
            let strange = |e| {
                Failure::new(format!("{} answers with something else than expected: {e}", self.url), "is it an Evenkeel of this version?")
            };
            return serde_json::from_slice(&answer).map(Reply::Good).map_err(strange);
        }
        let problem = self.problem(status, &answer)?;
        match status {
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => Ok(Reply::Refused(problem)),
            _ => Err(failure(status, problem)),
        }
    }

    fn problem(&self, status: StatusCode, answer: &[u8]) -> Result<Problem, Failure> {
        serde_json::from_slice(answer).map_err(|_| Failure::new(format!("{} answers {status}", self.url), "is it an Evenkeel? see --admin"))
    }

    /// Asks for something to be done that has no answer worth reading.
    pub fn post(&self, path: &str) -> Result<(), Failure> {
        let (status, answer) = self.exchange(Method::POST, path, Vec::new())?;
        if status.is_success() {
            return Ok(());
        }
        Err(Failure::new(format!("{} answers {status}: {}", self.url, String::from_utf8_lossy(&answer).trim()), ""))
    }

    /// Reads a stream of server-sent events until it ends (true) or `heard` wants no more of it (false).
    pub fn follow(&self, path: &str, mut heard: impl FnMut(&str) -> bool) -> Result<bool, Failure> {
        let request = self.request(Method::GET, path, Vec::new())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let stream = self.connect().await?;
            let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| self.silent(e))?;
            let _driver = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|e| self.silent(e))?;
            let (status, mut body) = (response.status(), response.into_body());
            if !status.is_success() {
                let answer = body.collect().await.map_err(|e| self.silent(e))?.to_bytes();
                return Err(failure(status, self.problem(status, &answer)?));
            }
            let mut text = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|e| self.silent(e))?.into_data() else { continue };
                text.extend_from_slice(&data);
                while let Some(end) = text.windows(2).position(|w| w == b"\n\n") {
                    let event: Vec<u8> = text.drain(..end + 2).collect();
                    let event = String::from_utf8_lossy(&event);
                    let data: Vec<&str> = event.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start).collect();
                    if !data.is_empty() && !heard(&data.join("\n")) {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        request = request.header("host", self.authority()?);
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file)
                .map_err(|e| Failure::new(format!("--token-file {}: {e}", file.display()), "name a file that you may read"))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        request.body(Full::new(Bytes::from(body))).map_err(|e| Failure::new(e, ""))
    }

    fn silent(&self, why: impl std::fmt::Display) -> Failure {
        let next = "is it running? see `evenkeel run --help`; elsewhere: --admin URL or EVENKEEL_ADMIN";
        Failure::new(format!("no Evenkeel answers at {}: {why}", self.url), next)
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(self.authority()?)).await;
        connecting.map_err(|_| self.silent(format!("no connection within {} s", CONNECT.as_secs())))?.map_err(|e| self.silent(e))
    }

    fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(StatusCode, Bytes), Failure> {
        let request = self.request(method, path, body)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let stream = self.connect().await?;
            let asking = async {
                let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
                let driver = tokio::spawn(connection);
                let response = sender.send_request(request).await?;
                let status = response.status();
                let body = response.into_body().collect().await?.to_bytes();
                driver.abort();
                Ok::<_, hyper::Error>((status, body))
            };
            let answered = tokio::time::timeout(PATIENCE, asking).await;
            let late = |_| self.silent(format!("connected, but no answer within {} s", PATIENCE.as_secs()));
            answered.map_err(late)?.map_err(|e| self.silent(e))
        })
    }

    /// `host:port` of the URL.
    fn authority(&self) -> Result<String, Failure> {
        let wrong = || Failure::new(format!("--admin {}: not an address of an admin API", self.url), "write it like http://127.0.0.1:9900");
        let text = if self.url.contains("://") { self.url.clone() } else { format!("http://{}", self.url) };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        match uri.scheme_str() {
            Some("http") => Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80))),
            Some("https") => Err(Failure::new(
                format!("--admin {}: the admin API speaks plain HTTP", self.url),
                "reach it over loopback or a tunnel, with http://",
            )),
            _ => Err(wrong()),
        }
    }
}

fn failure(status: StatusCode, problem: Problem) -> Failure {
    match status {
        StatusCode::UNAUTHORIZED => {
            Failure::new("the admin API wants a token, or another one", format!("--token-file FILE; {}", problem.detail))
        }
        _ => Failure::new(problem.detail, ""),
    }
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for b in name.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(b.into()),
            _ => out += &format!("%{b:02X}"),
        }
    }
    out
}

/// The pools that an operator means by `service/region`, or by a region alone.
pub fn pools(admin: &Admin, name: &str) -> Result<Vec<(String, String)>, Failure> {
    if let Some((service, region)) = name.split_once('/') {
        return Ok(vec![(service.into(), region.into())]);
    }
    let status = admin.status()?;
    let found: Vec<_> = status.pools.iter().filter(|p| p.region == name).map(|p| (p.service.clone(), p.region.clone())).collect();
    if found.is_empty() {
        let names: Vec<&str> = status.regions.iter().map(|r| r.name.as_str()).collect();
        return Err(Failure::new(
            format!("there is no region `{name}`"),
            format!("name one of {}, or a pool as service/region", names.join(", ")),
        ));
    }
    Ok(found)
}

/// Does the same to every pool that is meant; the worst verdict counts.
pub fn each_pool(admin: &Admin, name: &str, verb: &str, body: &impl Serialize) -> Result<Verdict, Failure> {
    let mut worst = Verdict::Good;
    for (service, region) in pools(admin, name)? {
        let path = format!("/v1/pools/{}/{}/{verb}", segment(&service), segment(&region));
        if admin.change(Method::POST, &path, body)? == Verdict::Bad {
            worst = Verdict::Bad;
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    /// A server that answers one request with this; what it was asked comes back from the handle.
    fn one(status: &str, body: &str) -> (Admin, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let asked = std::thread::spawn(move || {
            let (mut s, _) = listener.accept().unwrap();
            let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
            while !text.ends_with(b"}") && !text.ends_with(b"null") && !text.starts_with(b"GET") {
                let n = s.read(&mut chunk).unwrap();
                text.extend_from_slice(&chunk[..n]);
            }
            s.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(text).unwrap()
        });
        (Admin { url, token_file: None }, asked)
    }

    #[test]
    fn a_change_is_sent_with_its_token_and_a_conflict_is_a_no() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "secret\n").unwrap();
        let (mut admin, asked) = one("200 OK", r#"{"changes": ["east drained"], "generation": 1}"#);
        admin.token_file = Some(file);
        let verdict = admin.change(Method::PUT, "/v1/freeze", &serde_json::json!({"on": true})).unwrap();
        let asked = asked.join().unwrap();
        assert_eq!(verdict, Verdict::Good);
        assert!(asked.starts_with("PUT /v1/freeze HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n{\"on\":true}"), "{asked}");
        assert!(asked.contains("authorization: Bearer secret\r\n") && asked.contains("host: 127.0.0.1:"), "{asked}");
        let (admin, _asked) = one("409 Conflict", r#"{"status": 409, "title": "Conflict", "detail": "say force"}"#);
        assert_eq!(admin.change(Method::POST, "/v1/regions/a/drain", &()).unwrap(), Verdict::Bad);
    }

    #[test]
    fn what_could_not_run_says_what_to_do() {
        let says = |admin: &Admin| {
            let f = admin.status().unwrap_err();
            format!("{} / {}", f.what, f.next)
        };
        let (admin, _asked) = one("401 Unauthorized", r#"{"status": 401, "title": "Unauthorized", "detail": "a token is needed"}"#);
        let told = says(&admin);
        assert!(told.contains("--token-file"), "{told}");
        let (admin, _asked) = one("200 OK", "<html>");
        assert!(says(&admin).contains("something else than expected"));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = Admin { url: format!("http://{free}"), token_file: None };
        assert!(says(&nobody).contains("no Evenkeel answers at http://127.0.0.1:") && says(&nobody).contains("evenkeel run --help"));
        assert!(says(&Admin { url: "https://x".into(), token_file: None }).contains("speaks plain HTTP"));
        assert!(says(&Admin { url: "ftp://x".into(), token_file: None }).contains("http://127.0.0.1:9900"));
    }

    #[test]
    fn names_are_one_segment() {
        assert_eq!(segment("a b/ü~"), "a%20b%2F%C3%BC~");
    }
}
