//! The process itself: listeners, limits, admin, logs, stores.

use super::super::file;
use super::super::problem::Path;
use super::Checker;
use crate::model::topology::*;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

impl Checker<'_> {
    pub(super) fn edge(&mut self, raw: &file::Edge) -> Edge {
        let at = Path::of("edge");
        let threads = raw.threads.map_or(self.around.cores.max(1), |n| n as usize);
        self.require(
            (1..=1024).contains(&threads),
            &at.key("threads"),
            format!("{threads} threads\nallowed: 1 to 1024, or null for one per core"),
        );
        self.require(!raw.state_dir.is_empty(), &at.key("state_dir"), "must name a directory");
        if let Some(list) = &raw.residency_default {
            self.require(
                !list.is_empty(),
                &at.key("residency_default"),
                "an empty list allows no region at all\nallowed: jurisdictions like [us, ca], or null for any",
            );
        }
        Edge {
            name: raw.name.clone().unwrap_or_else(|| self.around.host.clone()),
            jurisdiction: raw.jurisdiction.as_deref().map(Into::into),
            threads,
            state_dir: self.path(&raw.state_dir),
            shutdown_delay: raw.shutdown_delay.0,
            drain_timeout: raw.drain_timeout.0,
            expose_region: raw.expose_region,
        }
    }

    /// An address with a port; `None` is told.
    pub(super) fn address(&mut self, path: &Path, text: &str) -> Option<SocketAddr> {
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                let meant = if text.parse::<IpAddr>().is_ok() {
                    format!("the port is missing: {text}:8080")
                } else if let Some(port) = text.strip_prefix(':').filter(|p| p.parse::<u16>().is_ok()) {
                    format!("did you mean `0.0.0.0:{port}`?")
                } else if text.parse::<u16>().is_ok() {
                    format!("did you mean `0.0.0.0:{text}`?")
                } else if let Some(port) = text.strip_prefix("localhost:") {
                    format!("did you mean `127.0.0.1:{port}`?")
                } else if text.contains("://") {
                    "leave the scheme out".into()
                } else {
                    String::new()
                };
                let message = format!("`{text}` is not an address with a port\nallowed: 10.1.0.11:8080 or [2001:db8::1]:8080\n{meant}");
                self.error(path, message.trim_end());
                None
            }
        }
    }

    pub(super) fn listeners(&mut self, raw: &[file::Listener]) -> Vec<Listener> {
        let at = Path::of("listeners");
        self.require(!raw.is_empty(), &at, "no listener: nobody could connect\nadd one: listeners: [{address: 0.0.0.0:8080}]");
        let mut all: Vec<Listener> = vec![];
        for (at, l) in self.items(&at, raw) {
            let here = at.key("address");
            if l.address.is_empty() {
                self.error(&here, "`address` is missing\nadd one: address: 0.0.0.0:8080");
            }
            let address = if l.address.is_empty() { None } else { self.address(&here, &l.address) };
            let Some(address) = address else { continue };
            if address.port() != 0 && all.iter().any(|other| other.address == address) {
                self.error(&here, format!("{address} is listened on twice\nkeep one of them"));
            }
            let mut trusted = vec![];
            for (at, text) in self.items(&at.key("trusted_proxies"), &l.trusted_proxies) {
                trusted.extend(self.network(&at, text));
            }
            if l.proxy_protocol && l.trusted_proxies.is_empty() {
                let why = "PROXY protocol is taken from trusted proxies only, and there are none: every connection would be refused";
                self.error(&at.key("proxy_protocol"), format!("{why}\nadd trusted_proxies: [10.0.0.0/8], or take proxy_protocol out"));
            }
            if l.redirect_https && l.tls.is_some() {
                self.error(
                    &at.key("redirect_https"),
                    "this listener speaks TLS already: clients would be redirected for ever\nset redirect_https on the plain listener",
                );
            }
            self.require(l.max_connections > 0, &at.key("max_connections"), "0 would refuse everybody\nallowed: 1 or more");
            let tls = l.tls.as_ref().map(|tls| self.listener_tls(&at.key("tls"), tls));
            all.push(Listener {
                address,
                redirect_https: l.redirect_https,
                proxy_protocol: l.proxy_protocol,
                trusted_proxies: trusted,
                max_connections: l.max_connections,
                tls,
            });
        }
        all
    }

    fn listener_tls(&mut self, at: &Path, raw: &file::ListenerTls) -> ListenerTls {
        let here = at.key("certificates");
        self.require(
            !raw.certificates.is_empty(),
            &here,
            "TLS needs a certificate\nadd one: certificates: [{cert: site.pem, key: site.key}]",
        );
        let mut certificates = vec![];
        for (at, c) in self.items(&here, &raw.certificates) {
            self.require(!c.cert.is_empty(), &at.key("cert"), "`cert` is missing\nadd the certificate chain: cert: site.pem");
            self.require(!c.key.is_empty(), &at.key("key"), "`key` is missing\nadd the private key: key: site.key");
            certificates.push(CertPair { cert: self.file(&at.key("cert"), &c.cert), key: self.file(&at.key("key"), &c.key) });
        }
        ListenerTls { certificates, client_ca: raw.client_ca.as_deref().map(|p| self.file(&at.key("client_ca"), p)) }
    }

    fn network(&mut self, path: &Path, text: &str) -> Option<ipnet::IpNet> {
        if let Ok(network) = text.parse::<ipnet::IpNet>() {
            if network.trunc() != network {
                self.warn(path, format!("`{text}` has bits behind its prefix: it means {}", network.trunc()));
            }
            return Some(network.trunc());
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(address.into());
        }
        let why = match text.split_once('/') {
            Some((ip, bits)) if ip.parse::<IpAddr>().is_ok() => {
                let most = if ip.contains(':') { 128 } else { 32 };
                format!("the prefix length `{bits}` must be 0 to {most}")
            }
            Some((ip, _)) => format!("`{ip}` is not an IP address"),
            None => "it is neither an address nor a network".into(),
        };
        self.error(
            path,
            format!("`{text}` is not a network: {why}\nallowed: CIDR notation, for example 10.0.0.0/8, 2001:db8::/32, 192.0.2.7"),
        );
        None
    }

    pub(super) fn admin(&mut self, raw: Option<&file::Admin>, listeners: &[Listener]) -> Option<Admin> {
        let (raw, at) = (raw?, Path::of("admin"));
        let address = self.address(&at.key("address"), &raw.address)?;
        if !address.ip().is_loopback() && raw.tokens.is_empty() {
            let why = format!("{address} can be reached from other machines, and no token is asked for: anybody could drain your regions");
            self.error(
                &at.key("address"),
                format!("{why}\nadd tokens: [{{name: ops, file: /etc/evenkeel/ops.token, write: true}}], or listen on 127.0.0.1:9900"),
            );
        }
        if address.port() != 0 && listeners.iter().any(|l| l.address == address) {
            self.error(&at.key("address"), format!("{address} is a listener for clients, too\ngive the admin API an address of its own"));
        }
        let mut tokens: Vec<Token> = vec![];
        for (at, t) in self.items(&at.key("tokens"), &raw.tokens) {
            self.require(
                !t.name.is_empty(),
                &at.key("name"),
                "`name` is missing\nit is shown in the journal beside what was done with the token",
            );
            self.require(!t.file.is_empty(), &at.key("file"), "`file` is missing\nit names the file that holds the secret");
            self.require(tokens.iter().all(|o| o.name != t.name), &at.key("name"), format!("a token `{}` is there already", t.name));
            tokens.push(Token { name: t.name.clone(), file: self.file(&at.key("file"), &t.file), write: t.write });
        }
        if !tokens.is_empty() && tokens.iter().all(|t| !t.write) {
            self.warn(&at.key("tokens"), "no token may change anything: nobody could drain a region\nadd `write: true` to one");
        }
        Some(Admin { address, tokens })
    }

    pub(super) fn limits(&mut self, raw: &file::LimitsFile) -> Limits {
        let at = Path::of("limits");
        for (key, time) in [
            ("header_timeout", raw.header_timeout.0),
            ("body_timeout", raw.body_timeout.0),
            ("tls_handshake_timeout", raw.tls_handshake_timeout.0),
            ("idle_timeout", raw.idle_timeout.0),
        ] {
            self.require(!time.is_zero(), &at.key(key), "0 would end every connection at once\nallowed: more than 0");
        }
        self.require((256..=16 << 20).contains(&raw.header_bytes.0), &at.key("header_bytes"), "out of bounds\nallowed: 256B to 16MiB");
        self.require((64..=1 << 20).contains(&raw.uri_bytes.0), &at.key("uri_bytes"), "out of bounds\nallowed: 64B to 1MiB");
        self.require((1..=10_000).contains(&raw.header_count), &at.key("header_count"), "out of bounds\nallowed: 1 to 10000");
        self.require(raw.h2_streams > 0, &at.key("h2_streams"), "0 would refuse every stream\nallowed: 1 or more");
        for (key, n) in [
            ("requests_per_connection", raw.requests_per_connection),
            ("connections_per_client", raw.connections_per_client.map(u64::from)),
        ] {
            self.require(n != Some(0), &at.key(key), "0 would refuse everybody\nallowed: 1 or more, or null for any");
        }
        self.require(
            raw.requests_per_client.is_none_or(|r| r.0 > 0.0),
            &at.key("requests_per_client"),
            "0 would refuse everybody\nallowed: more than 0, or null for any",
        );
        self.require(
            raw.replay_bytes <= raw.replay_total,
            &at.key("replay_bytes"),
            "more than replay_total, the bound of all of them together",
        );
        Limits {
            header_timeout: raw.header_timeout.0,
            header_bytes: raw.header_bytes.0 as usize,
            header_count: raw.header_count as usize,
            uri_bytes: raw.uri_bytes.0 as usize,
            body_bytes: raw.body_bytes.map(|s| s.0),
            body_timeout: raw.body_timeout.0,
            body_min_rate: raw.body_min_rate.0,
            tls_handshake_timeout: raw.tls_handshake_timeout.0,
            idle_timeout: raw.idle_timeout.0,
            requests_per_connection: raw.requests_per_connection,
            connections_per_client: raw.connections_per_client,
            requests_per_client: raw.requests_per_client.map(|r| r.0),
            h2_streams: raw.h2_streams,
            replay_bytes: raw.replay_bytes.0 as usize,
            replay_total: raw.replay_total.0 as usize,
        }
    }

    pub(super) fn logging(&mut self, raw: &file::Logging) -> Logging {
        let level = match raw.level {
            file::LogLevel::Error => "error",
            file::LogLevel::Warn => "warn",
            file::LogLevel::Info => "info",
            file::LogLevel::Debug => "debug",
            file::LogLevel::Trace => "trace",
        };
        let format = match raw.format {
            file::LogFormat::Auto => LogFormat::Auto,
            file::LogFormat::Human => LogFormat::Human,
            file::LogFormat::Json => LogFormat::Json,
        };
        let access = raw.access.as_ref().map(|a| {
            self.require(!a.path.is_empty(), &Path::of("logging").key("access").key("path"), "must be `stdout` or a file");
            AccessLog { file: (a.path != "stdout").then(|| self.path(&a.path)), sample: a.sample.0 }
        });
        Logging { level: level.into(), format, access }
    }

    pub(super) fn tracing(&mut self, raw: &file::Tracing) -> Tracing {
        let right = raw.otlp.parse::<http::Uri>().is_ok_and(|u| u.scheme_str() == Some("http") && u.host().is_some_and(|h| !h.is_empty()));
        let path = Path::of("tracing").key("otlp");
        let message = "must be the address of a collector that speaks OTLP over plain HTTP\nallowed: http://HOST:PORT, for example http://127.0.0.1:4318 (a collector beside the proxy passes on over TLS)";
        self.require(right, &path, message);
        Tracing { otlp: raw.otlp.clone(), sample: raw.sample.0 }
    }

    pub(super) fn stale(&mut self, raw: &file::StaleStore) -> StaleStore {
        let fits = raw.max_body <= raw.max_bytes;
        self.require(fits, &Path::of("stale").key("max_body"), "more than stale.max_bytes, the bound of all copies together");
        StaleStore { max_bytes: raw.max_bytes.0, max_body: raw.max_body.0, persist: raw.persist }
    }

    pub(super) fn spool(&mut self, raw: &file::Spool, edge: &Edge) -> SpoolStore {
        self.require(
            raw.replay_rate.0 > 0.0,
            &Path::of("spool").key("replay_rate"),
            "0 would never replay a write\nallowed: more than 0, for example 50/s",
        );
        let path = raw.path.as_deref().map_or_else(|| edge.state_dir.join("spool"), |p| self.path(p));
        SpoolStore { path, max_bytes: raw.max_bytes.0, replay_rate: raw.replay_rate.0 }
    }

    pub(super) fn journal(&mut self, raw: &file::Journal, edge: &Edge) -> JournalStore {
        let at = Path::of("journal");
        self.require(raw.keep.0 >= Duration::from_secs(60), &at.key("keep"), "too short to be read by anybody\nallowed: 1m or more");
        self.require(raw.max_bytes.0 >= 64 << 10, &at.key("max_bytes"), "too little for even a short outage\nallowed: 64KiB or more");
        let path = raw.path.as_deref().map_or_else(|| edge.state_dir.join("journal"), |p| self.path(p));
        JournalStore { path, keep: raw.keep.0, max_bytes: raw.max_bytes.0 }
    }
}
