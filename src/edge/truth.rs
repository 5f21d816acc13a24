//! What a request has to do with last good copies and response guards: which copy is its own, whether an answer is
//! believed, what is kept, and what is served when nothing good can be had.
//!
//! ```text
//! answer ─▶ (JSON on a guarded route: read whole) ─▶ judged against the last good copy
//!              believed ─▶ relayed, and kept          rejected ─▶ another region
//!                                                        another one agrees ─▶ it is the truth: relayed, and kept
//!                                                        nobody is believed ─▶ fields masked, or the last good copy; marked
//! ```
//!
//! The rules are pure and live in [`steer::lastgood`](lastgood) and [`steer::guard`](guard); this room
//! asks them on behalf of one request, and the process's [`Store`] for copies.
//!
//! Copies are kept, and served, only where this edge stands in the route's residency, and only if the copy's own region
//! is (still) allowed. A doubtful pool (two rejections within seconds, or one that has yet to prove itself again) has its zeros without a past cross-checked as
//! well; where there is nobody to ask, such an answer goes out, for it may well be true.
//!
//! Not judged, and let through: other statuses than 200, other types than JSON, coded bodies (guarded routes ask for none), and
//! bodies above `stale.max_body`. They are not kept on guarded routes either. Writes do not evict.

use super::connection::Guest;
use super::stale::{Claim, Copy, Store};
use super::worker::Worker;
use crate::clock;
use crate::http1::forward::each_response_field;
use crate::http1::{BodyFraming, Method, RequestHead, ResponseHead, ResponseParser};
use crate::live::{Cells, Picture};
use crate::model::id::{PoolIx, RegionIx, RouteIx};
use crate::model::policy::{Degrade, HeaderOps, Route, StaleRule};
use crate::model::time::{Duration, Moment};
use crate::model::topology::Topology;
use crate::steer::fallback::{Plan, Way};
use crate::steer::guard::{self, Rejection};
use crate::steer::lastgood::{self, Asked, Keep, Key, Reply};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;
use smallvec::SmallVec;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// For guarded routes without a rule of their own: how old a copy may be to be compared with, or served.
static ANY: StaleRule = StaleRule { max_age: Duration::from_secs(24 * 3600), key_headers: Vec::new(), ignore_cookies: Vec::new() };

/// By which rule a route keeps copies, and compares with them; `None`: it does neither.
fn rule(route: &Route) -> Option<&StaleRule> {
    let own = route.degrade.iter().find_map(|d| if let Degrade::Stale(rule) = d { Some(rule) } else { None });
    own.or((!route.guards.is_empty()).then_some(&ANY))
}

/// Whether data of this route may lie here.
fn lawful(t: &Topology, route: &Route) -> bool {
    let here = t.edge.jurisdiction.as_ref();
    route.residency.as_ref().is_none_or(|allowed| here.is_some_and(|here| allowed.contains(here)))
}

/// The rule by which the copy with this key may be kept here; `None`: it may not.
pub(super) fn rule_of<'t>(t: &'t Topology, key: &Key) -> Option<&'t StaleRule> {
    let route = t.routes.iter().find(|r| key.parts().next() == Some(r.name.as_bytes()))?;
    rule(route).filter(|rule| lawful(t, route) && lastgood::made_by(key, rule))
}

/// Whether an answer can be judged: JSON in plain text, of a size that is read whole.
pub(super) fn readable(head: &ResponseHead, most: u64) -> bool {
    let json = head.head.get("content-type").is_some_and(|value| {
        let media = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        media == b"application/json" || media.ends_with(b"+json")
    });
    let plain = head.head.get("content-encoding").is_none_or(|value| value.eq_ignore_ascii_case(b"identity"));
    let short = !matches!(head.framing, BodyFraming::Length(n) if n > most);
    head.status == 200 && json && plain && short
}

/// An answer that was not believed.
struct Rejected {
    pool: PoolIx,
    region: RegionIx,
    rejection: Rejection,
    /// By comparison with the past, or by itself; not for want of a past.
    sure: bool,
    /// Another region said the same.
    agreed: bool,
}

/// Why an answer is not taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unbelieved {
    /// It contradicts the past, or itself.
    Wrong,
    /// Likewise, but only in fields that can be masked.
    Maskable,
    /// There is nothing to compare it with, and its pool is in doubt: ask once more elsewhere.
    Unsure,
}

/// One request's part in it.
pub(super) struct Truth<'p> {
    topology: &'p Topology,
    route: &'p Route,
    request: &'p RequestHead,
    rule: &'p StaleRule,
    /// `None`: nothing is kept for this request, and no copy is given to it.
    own: Option<(Arc<Store>, Key)>,
    /// The last good answer, parsed when it was first asked for.
    before: Option<Option<Value>>,
    rejected: SmallVec<[Rejected; 2]>,
}

impl<'p> Truth<'p> {
    /// `None`: neither copies nor guards concern this request.
    #[inline]
    pub(super) fn of(
        worker: &Worker,
        picture: &'p Picture,
        route: &'p Route,
        request: &'p RequestHead,
        guest: &Guest,
    ) -> Option<Box<Self>> {
        let rule = rule(route).filter(|_| matches!(request.method, Method::Get | Method::Head))?;
        let topology = picture.view.topology();
        let own = if lawful(topology, route) { key(route, rule, request, guest) } else { None };
        let own = own.map(|key| (worker.copies.store(&topology.stale), key));
        Some(Box::new(Self { topology, route, request, rule, own, before: None, rejected: SmallVec::new() }))
    }

    /// How many bytes of an answer are to be read before it is decided about; `None`: none.
    pub(super) fn reads(&self) -> Option<u64> {
        (!self.route.guards.is_empty() && self.request.method == Method::Get).then_some(self.topology.stale.max_body)
    }

    fn region(&self, pool: PoolIx) -> RegionIx {
        self.topology.pools[pool.at()].region
    }

    /// Whether a whole answer of this pool is believed. `unproven`: the pool was out and has yet to prove itself.
    pub(super) fn judge(
        &mut self,
        cells: &Cells,
        route: RouteIx,
        (pool, unproven): (PoolIx, bool),
        body: &[u8],
        now: Moment,
    ) -> Result<(), Unbelieved> {
        // What is no JSON has none of the fields.
        let answer = serde_json::from_slice(body).unwrap_or(Value::Null);
        if self.before.is_none() {
            let copy = self.find(self.rule.max_age);
            self.before = Some(copy.and_then(|c| serde_json::from_slice(&c.body).ok()));
        }
        let (before, guards) = (self.before.as_ref().and_then(Option::as_ref), &self.route.guards);
        let (rejection, sure) = match guard::judge(guards, &answer, before) {
            Err(rejection) => (rejection, true),
            Ok(()) if before.is_some() || !(unproven || cells.pool(pool).doubted(now)) => return Ok(()),
            Ok(()) => match guard::doubt(guards, &answer) {
                Err(rejection) => (rejection, false),
                Ok(()) => return Ok(()),
            },
        };
        let region = self.region(pool);
        let mut agreed = false;
        for other in self.rejected.iter_mut().filter(|o| o.region != region && o.rejection.agrees(&rejection)) {
            (other.agreed, agreed) = (true, true);
        }
        if agreed {
            return Ok(());
        }
        if sure {
            cells.guard_rejected(route, rejection.guard);
            cells.pool(pool).rejected(now);
        }
        let mask = guards[rejection.guard].mask;
        self.rejected.push(Rejected { pool, region, rejection, sure, agreed: false });
        Err(match (sure, mask) {
            (false, _) => Unbelieved::Unsure,
            (true, true) => Unbelieved::Maskable,
            (true, false) => Unbelieved::Wrong,
        })
    }

    /// An answer that was not believed, without what was not believed in it, and marked; `None`: that cannot be taken out.
    pub(super) fn mask(&self, head: &mut ResponseHead, body: &[u8]) -> Option<Bytes> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        let before = self.before.as_ref().and_then(Option::as_ref);
        let masked = guard::mask(&self.route.guards, &mut answer, before);
        if masked.is_empty() || guard::judge(&self.route.guards, &answer, before).is_err() {
            return None;
        }
        let body = Bytes::from(serde_json::to_vec(&answer).ok()?);
        // What was said of the other body does not hold for this one.
        for name in ["etag", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges", "content-length"] {
            head.head.remove(name);
        }
        let printable = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
        let fields: Vec<String> = masked.iter().map(|at| at.chars().filter(|c| printable(*c)).collect()).collect();
        head.head.append("Cache-Control", "no-store");
        head.head.append("Evenkeel-Degraded", format!("masked; fields=\"{}\"", fields.join(" ")));
        (head.framing, head.length) = (BodyFraming::Length(body.len() as u64), Some(body.len() as u64));
        Some(body)
    }

    /// Whether another region said the same as this pool, of which the answer was not believed.
    pub(super) fn agreed(&self, pool: PoolIx) -> bool {
        self.rejected.iter().any(|r| r.pool == pool && r.agreed)
    }

    /// The request has its answer, from the region `good` if any was: what is left of the case against a pool.
    pub(super) fn settle(&self, cells: &Cells, pool: PoolIx, good: Option<RegionIx>) {
        let contradicted = |r: &Rejected| good.map_or(r.sure, |good| good != r.region);
        if self.rejected.iter().any(|r| r.pool == pool && !r.agreed && contradicted(r)) {
            let mut hash = DefaultHasher::new();
            match &self.own {
                Some((_, key)) => key.hash(&mut hash),
                None => (self.request.authority(), self.request.path(), self.request.query()).hash(&mut hash),
            }
            cells.implausible(pool, hash.finish());
        }
    }

    /// The copy that is this request's own, if it is not older than that and may be given out here.
    fn find(&self, max_age: Duration) -> Option<Arc<Copy>> {
        let (store, key) = self.own.as_ref()?;
        let copy = store.get(key, &self.request.head, now(), max_age)?;
        let of = |region: &Arc<str>| self.topology.regions.iter().position(|r| r.name == *region);
        let allowed = self.route.residency.is_none() || of(&copy.region).is_some_and(|r| self.route.allowed.has(r.into()));
        allowed.then_some(copy)
    }

    fn reply(&self, copy: &Copy) -> Reply {
        lastgood::reply(&self.request.head, copy.field("etag"), copy.field("last-modified"))
    }

    /// Whether the route wants a copy served before a failing answer, and there is one.
    pub(super) fn has_copy(&self) -> bool {
        // Only where `stale` stands first: another way before it has its own rules.
        matches!(self.route.degrade.first(), Some(Degrade::Stale(_)))
            && self.find(self.rule.max_age).is_some_and(|c| self.reply(&c) != Reply::Never)
    }

    /// The copy to answer with: where the plan has one among its ways, or where answers were there but not believed.
    pub(super) fn copy(&self, plan: &Plan<'_>) -> Option<(Box<ResponseHead>, Bytes)> {
        let way = plan.ways.iter().find_map(|w| if let Way::Stale(rule) = w { Some(*rule) } else { None });
        let unbelieved = self.rejected.iter().any(|r| r.sure).then_some(self.rule);
        let copy = self.find(way.or(unbelieved)?.max_age)?;
        answer(self.request.method == Method::Head, self.reply(&copy), &copy, now())
    }

    /// What becomes of a good answer whose head has come. `Some`: its body is to be collected.
    /// `judged`: guards have seen all of it.
    pub(super) fn keep(&self, head: &ResponseHead, judged: bool) -> Option<Box<Collect>> {
        let (store, key) = self.own.as_ref()?;
        let method = self.request.method_text();
        let names = match lastgood::keep(method, &self.request.head, head.status, &head.head) {
            Keep::Yes(names) => names,
            Keep::No => return None,
            Keep::Evict => {
                store.evict(key, &self.request.head);
                return None;
            }
        };
        let most = store.max_body();
        let short = !matches!(head.framing, BodyFraming::Length(n) if n > most);
        let json = head.head.get("content-type").is_some_and(|t| t.to_ascii_lowercase().windows(4).any(|w| w == b"json"));
        let believed = self.route.guards.is_empty() || judged || !json;
        // What two regions agree on replaces whatever stood against it.
        if !short || !believed {
            return None;
        }
        let agreed = self.rejected.iter().any(|r| r.agreed);
        let claim = store.claim(key, &self.request.head, now(), agreed)?;
        let mut fields = Vec::new();
        each_response_field(head, &HeaderOps::default(), |n, v| fields.push((Bytes::copy_from_slice(n), Bytes::copy_from_slice(v))));
        // The last one is the `Via` of this hop, which is written anew whenever the copy goes out.
        fields.pop();
        Some(Box::new(Collect { names, status: head.status, fields, body: BytesMut::new(), most, claim: Some(claim), ended: false }))
    }

    /// Keep what was collected, if it came to its end.
    pub(super) fn put(&self, collected: Collect, pool: PoolIx) {
        let Some((store, key)) = self.own.as_ref().filter(|_| collected.ended) else { return };
        let Collect { names, status, fields, body, .. } = collected;
        let region = self.topology.regions[self.region(pool).at()].name.clone();
        // Copied, so that it takes the room it is weighed by.
        let copy = Copy { status, fields, body: Bytes::copy_from_slice(&body), kept_at: now(), region };
        store.put(key, &self.request.head, Keep::Yes(names), copy);
    }
}

/// Milliseconds since the Unix epoch: copies may outlive the process.
pub(super) fn now() -> u64 {
    u64::try_from(clock::wall_now().as_millisecond()).unwrap_or(0)
}

fn key(route: &Route, rule: &StaleRule, request: &RequestHead, guest: &Guest) -> Option<Key> {
    let target = match request.query() {
        Some(query) => format!("{}?{query}", request.path()),
        None => request.path().to_owned(),
    };
    let asked = Asked {
        method: request.method_text(),
        scheme: if guest.https { "https" } else { "http" },
        host: &request.authority().to_ascii_lowercase(),
        target: &target,
        fields: &request.head,
        certificate: !guest.certificate.is_empty(),
    };
    lastgood::key(&route.name, rule, &asked)
}

/// A copy as an answer: read like a backend's, so that it goes the same way home.
fn answer(is_head: bool, reply: Reply, copy: &Copy, now: u64) -> Option<(Box<ResponseHead>, Bytes)> {
    let mut raw = BytesMut::with_capacity(512);
    match reply {
        Reply::Never => return None,
        Reply::NotModified => raw.put_slice(b"HTTP/1.1 304 Not Modified\r\n"),
        Reply::Whole => {
            let phrase = http::StatusCode::from_u16(copy.status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
            raw.put_slice(format!("HTTP/1.1 {} {phrase}\r\n", copy.status).as_bytes());
        }
    }
    for (name, value) in copy.fields.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(b"age")) {
        crate::http1::forward::field(&mut raw, name, value);
    }
    let age = copy.age(now);
    raw.put_slice(format!("Age: {age}\r\nEvenkeel-Degraded: stale; age={age}\r\n").as_bytes());
    if reply == Reply::Whole {
        raw.put_slice(format!("Content-Length: {}\r\n", copy.body.len()).as_bytes());
    }
    raw.put_slice(b"\r\n");
    let head = ResponseParser::new(is_head, false).parse(&mut raw).ok()??;
    let body = if head.framing == BodyFraming::None { Bytes::new() } else { copy.body.clone() };
    Some((Box::new(head), body))
}

/// An answer that is collected while it passes.
#[derive(Debug)]
pub(super) struct Collect {
    names: Vec<String>,
    status: u16,
    fields: Vec<(Bytes, Bytes)>,
    body: BytesMut,
    most: u64,
    /// `None`: not for the store.
    claim: Option<Claim>,
    ended: bool,
}

impl Collect {
    /// The body alone.
    pub(super) fn plain(most: u64) -> Self {
        Self { names: Vec::new(), status: 0, fields: Vec::new(), body: BytesMut::new(), most, claim: None, ended: false }
    }
    /// The whole body; `None`: it was too large, or did not come to its end.
    pub(super) fn into_body(self) -> Option<Bytes> {
        self.ended.then(|| self.body.freeze())
    }
    /// A piece of its body.
    pub(super) fn data(&mut self, data: &[u8]) {
        let room = self.claim.as_mut().is_none_or(|claim| claim.take(data.len() as u64));
        if !room || (self.body.len() + data.len()) as u64 > self.most {
            // Too large after all: nothing more is added, and the end never comes.
            (self.body, self.most, self.claim) = (BytesMut::new(), 0, None);
        } else {
            self.body.extend_from_slice(data);
        }
    }
    /// Its end.
    pub(super) fn end(&mut self) {
        self.ended = self.most > 0;
    }
}
