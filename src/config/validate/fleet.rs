//! The other edges.

use super::super::file;
use super::super::problem::Path;
use super::Checker;
use crate::model::policy::Verdicts;
use crate::model::topology::{CertPair, Edge, Fleet};
use std::time::Duration;

impl Checker<'_> {
    pub(super) fn fleet(&mut self, raw: &file::Fleet, edge: &Edge) -> Fleet {
        let at = Path::of("fleet");
        let nats = at.key("nats");
        let n = &raw.nats;
        let here = nats.key("servers");
        self.require(
            !n.servers.is_empty(),
            &nats,
            "no server: the edges would never meet\nadd one: nats: {servers: [\"nats://10.0.0.5:4222\"]}",
        );
        for (at, server) in self.items(&here, &n.servers) {
            self.server(&at, server);
        }
        if n.credentials.is_some() && n.token_file.is_some() {
            self.error(&nats.key("token_file"), "credentials and a token: NATS takes one of them\nkeep one");
        }
        let plain = n.servers.iter().any(|s| !s.starts_with("tls://") && !s.starts_with("wss://"));
        if plain && n.ca.is_none() && n.client.is_none() && (n.credentials.is_some() || n.token_file.is_some()) {
            let key = if n.credentials.is_some() { "credentials" } else { "token_file" };
            self.warn(
                &nats.key(key),
                "goes over the wire without TLS, unless the server insists on it\nwrite tls:// in front of the servers",
            );
        }
        let fine = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        self.require(
            !n.name.is_empty() && n.name.len() <= 64 && n.name.chars().all(fine),
            &nats.key("name"),
            format!("`{}` cannot name a bucket\nallowed: 1 to 64 letters, digits, `_` and `-`", n.name),
        );
        self.require(
            (1..=5).contains(&n.replicas),
            &nats.key("replicas"),
            "out of bounds\nallowed: 1 to 5 (as many as the cluster has servers, at most)",
        );
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(300));
        self.require((least..=most).contains(&raw.lease.0), &at.key("lease"), "out of bounds\nallowed: 1s to 5m");
        if edge.name.is_empty() {
            self.error(&Path::of("edge").key("name"), "must not be empty in a fleet: edges are told apart by it");
        }
        let client = n.client.as_ref().map(|c| {
            let at = nats.key("client");
            self.require(!c.cert.is_empty(), &at.key("cert"), "`cert` is missing\nadd the certificate chain: cert: edge.pem");
            self.require(!c.key.is_empty(), &at.key("key"), "`key` is missing\nadd the private key: key: edge.key");
            CertPair { cert: self.file(&at.key("cert"), &c.cert), key: self.file(&at.key("key"), &c.key) }
        });
        let mut file = |key: &str, path: &Option<String>| path.as_deref().map(|p| self.file(&nats.key(key), p));
        Fleet {
            credentials: file("credentials", &n.credentials),
            token_file: file("token_file", &n.token_file),
            ca: file("ca", &n.ca),
            client,
            servers: n.servers.clone(),
            name: n.name.clone(),
            replicas: n.replicas,
            verdicts: match raw.verdicts {
                file::Verdicts::Off => Verdicts::Off,
                file::Verdicts::Advise => Verdicts::Advise,
                file::Verdicts::Follow => Verdicts::Follow,
            },
            lease: raw.lease.0,
        }
    }

    fn server(&mut self, at: &Path, text: &str) {
        let (scheme, rest) = text.split_once("://").unwrap_or(("nats", text));
        let known = ["nats", "tls"].contains(&scheme);
        self.require(known, at, format!("`{scheme}` is no way to reach NATS\nallowed: nats://host:4222 or tls://host:4222"));
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').unwrap_or((rest, "4222"));
        let secret = host.contains('@');
        self.require(!secret, at, "a password has no place in a config that status pages show\nuse credentials or token_file");
        let address = !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0);
        self.require(!known || secret || address, at, format!("`{text}` is not a server\nallowed: nats://host:4222 or tls://host:4222"));
    }
}
