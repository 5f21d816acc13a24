//! From the tree to the raw types, with every problem in one run.
//!
//! serde stops at the first error. Here a value that cannot be read is noted and cut out of the tree, as if it had not been
//! written, and the whole is read again, until nothing more is wrong: every raw type has a default for every key, so there
//! is always something to go on with. A file has a hundred problems at most; reading takes microseconds.

use super::problem::{Path, nearest};
use super::tree::{Entry, Node, Value};
use serde::de::{self, DeserializeOwned, Visitor};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// After so many, nobody reads on.
const MAX_PROBLEMS: usize = 100;

/// One value or key that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Wrong {
    /// Which.
    pub path: Path,
    /// The key itself, not its value.
    pub key: bool,
    /// What; further lines are notes.
    pub message: String,
    /// What may have been meant instead: nobody need say that this is missing.
    pub meant: Option<Path>,
}

/// The newtype of this name may be one value or a list of them (as serde knows no such thing, the name tells).
pub const ONE_OR_MANY: &str = "$evenkeel::OneOrMany";

/// What came of reading.
#[derive(Debug)]
pub struct Reading<T> {
    /// What could be read; the rest has its default.
    pub value: T,
    /// What could not.
    pub wrong: Vec<Wrong>,
    /// What was left out of `value` because of it.
    pub cut: BTreeSet<Path>,
}

/// Reads a tree.
pub fn read<T: DeserializeOwned + Default>(root: &Node) -> Reading<T> {
    let state = State::default();
    let mut wrong: Vec<Wrong> = vec![];
    let value = loop {
        match T::deserialize(At { node: root, path: Path::default(), state: &state }) {
            Ok(value) => break value,
            Err(stop) => {
                let path = stop.path.unwrap_or_default();
                let mut cut = path.clone();
                if wrong.iter().all(|w| w.path != path) {
                    wrong.push(Wrong { path, key: false, message: stop.message, meant: None });
                }
                // What cannot be cut out by itself (the settings of a kind) goes with what is around it.
                while !cut.0.is_empty() && !state.cut.borrow_mut().insert(cut.clone()) {
                    cut.0.pop();
                }
                if cut.0.is_empty() || wrong.len() >= MAX_PROBLEMS {
                    break T::default();
                }
            }
        }
    };
    wrong.extend(state.unknown.into_inner().into_values());
    Reading { value, wrong, cut: state.cut.into_inner() }
}

#[derive(Default)]
struct State {
    cut: RefCell<BTreeSet<Path>>,
    unknown: RefCell<BTreeMap<Path, Wrong>>,
}

/// Why reading stopped.
#[derive(Debug)]
pub struct Stop {
    path: Option<Path>,
    message: String,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Stop {}
impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: None, message: message.to_string() }
    }
}

/// A place in the tree, as a serde deserializer.
struct At<'a> {
    node: &'a Node,
    path: Path,
    state: &'a State,
}

impl<'a> At<'a> {
    fn stop(&self, message: String) -> Stop {
        Stop { path: Some(self.path.clone()), message }
    }
    fn expected<T>(&self, what: &str) -> Result<T, Stop> {
        Err(self.stop(format!("must be {what}, but is {}", describe(self.node))))
    }
    fn expected_list<T>(&self) -> Result<T, Stop> {
        let meant = match &self.node.value {
            _ if self.node.is_null() => "put the items below it, or take the line out".into(),
            Value::Scalar { text, .. } => format!("did you mean `[{text}]`?"),
            _ => "allowed: [a, b], or lines that begin with `- `".into(),
        };
        Err(self.stop(format!("must be a list, but is {}\n{meant}", describe(self.node))))
    }
    /// The text of an unquoted scalar that is not null.
    fn plain(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, plain: true } if !self.node.is_null() => Some(text),
            _ => None,
        }
    }
    fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar { text, .. } if !self.node.is_null() => Some(text),
            _ => None,
        }
    }
    fn locate<T>(path: &Path, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|stop| Stop { path: Some(stop.path.unwrap_or_else(|| path.clone())), ..stop })
    }
    fn whole<T: std::str::FromStr>(&self) -> Result<T, Stop> {
        if let Value::Scalar { text, plain: false } = &self.node.value
            && text.parse::<T>().is_ok()
        {
            return Err(self.stop(format!("must be a whole number, but is the text \"{text}\"\ntake the quotes away")));
        }
        let Some(text) = self.plain() else { return self.expected("a whole number") };
        match text.replace('_', "").parse() {
            Ok(n) => Ok(n),
            Err(_) if text.parse::<f64>().is_ok_and(|n| n < 0.0) => {
                Err(self.stop(format!("must be a whole number, but `{text}` is negative")))
            }
            Err(_) if text.parse::<i128>().is_ok() => Err(self.stop(format!("`{text}` is too large"))),
            Err(_) => self.expected("a whole number"),
        }
    }
}

/// A node in words, for messages.
fn describe(node: &Node) -> String {
    match &node.value {
        _ if node.is_null() => "empty (null)".into(),
        Value::Scalar { text, plain: true } => format!("`{text}`"),
        Value::Scalar { text, .. } => format!("the text {text:?}"),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map(entries) if entries.is_empty() => "an empty block".into(),
        Value::Map(_) => format!("a block with the keys {}", node.keys().join(", ")),
    }
}

/// `a`, `b` or `c`.
pub fn any_of(options: &[&str]) -> String {
    match options {
        [] => "nothing".into(),
        [one] => format!("`{one}`"),
        [front @ .., last] => format!("{} or `{last}`", front.iter().map(|o| format!("`{o}`")).collect::<Vec<_>>().join(", ")),
    }
}

macro_rules! whole {
    ($($method:ident $visit:ident $type:ty),+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            Self::locate(&self.path, visitor.$visit(self.whole::<$type>()?))
        }
    )+};
}

impl<'de> de::Deserializer<'de> for At<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.node.is_null() {
            return visitor.visit_unit();
        }
        match &self.node.value {
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Scalar { text, plain } => {
                let result = match text.as_str() {
                    "true" | "True" | "TRUE" if *plain => visitor.visit_bool(true),
                    "false" | "False" | "FALSE" if *plain => visitor.visit_bool(false),
                    t if *plain && t.parse::<i64>().is_ok() => visitor.visit_i64(t.parse().unwrap_or_default()),
                    t if *plain && t.parse::<f64>().is_ok_and(f64::is_finite) => visitor.visit_f64(t.parse().unwrap_or_default()),
                    t => visitor.visit_str(t),
                };
                Self::locate(&self.path, result)
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.plain() {
            Some("true" | "True" | "TRUE") => visitor.visit_bool(true),
            Some("false" | "False" | "FALSE") => visitor.visit_bool(false),
            _ => self.expected("true or false"),
        }
    }

    whole!(deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
           deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64);

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_f64(visitor)
    }
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.plain().and_then(|t| t.parse::<f64>().ok()).filter(|n| n.is_finite()) {
            Some(n) => Self::locate(&self.path, visitor.visit_f64(n)),
            None => self.expected("a number"),
        }
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    /// Where text is wanted, `8080` and `true` are text, too.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.text() {
            Some(text) => Self::locate(&self.path, visitor.visit_str(text)),
            None => self.expected("a text"),
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.node.is_null() { visitor.visit_unit() } else { self.expected("null") }
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        if name == ONE_OR_MANY && matches!(self.node.value, Value::List(_)) {
            return self.deserialize_seq(visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let Value::List(items) = &self.node.value else { return self.expected_list() };
        let cut = self.state.cut.borrow().clone();
        let kept = items.iter().enumerate().map(|(i, node)| (self.path.at(i), node)).filter(|(path, _)| !cut.contains(path));
        Self::locate(&self.path, visitor.visit_seq(Items { items: kept.collect::<Vec<_>>().into_iter(), state: self.state }))
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_seq(visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let Value::Map(entries) = &self.node.value else { return self.expected("a block of names with values (name: …)") };
        let cut = self.state.cut.borrow().clone();
        let kept = entries.iter().map(|e| (self.path.key(&e.key), e)).filter(|(path, _)| !cut.contains(path));
        let map = Entries { entries: kept.collect::<Vec<_>>().into_iter(), value: None, state: self.state };
        Self::locate(&self.path, visitor.visit_map(map))
    }
    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, keys: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        let Value::Map(entries) = &self.node.value else {
            let or = if self.node.is_null() { "\nput its keys below it, or take the line out" } else { "" };
            return self.expected(&format!("a block with keys like {}{or}", any_of(&keys[..keys.len().min(4)])));
        };
        let cut = self.state.cut.borrow().clone();
        let mut kept = vec![];
        for entry in entries {
            let path = self.path.key(&entry.key);
            if !keys.contains(&entry.key.as_str()) {
                self.state.unknown.borrow_mut().insert(path.clone(), unknown(&self.path, path, &entry.key, keys));
            } else if !cut.contains(&path) {
                kept.push((path, entry));
            }
        }
        Self::locate(&self.path, visitor.visit_map(Entries { entries: kept.into_iter(), value: None, state: self.state }))
    }

    /// A word, or a block of one key that names the kind and holds its settings.
    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, kinds: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        let (word, inside) = match &self.node.value {
            // `reject: null` means the word.
            _ if self.node.is_null() && kinds.contains(&"null") => ("null", None),
            Value::Scalar { text, .. } if !self.node.is_null() => (text.as_str(), None),
            Value::Map(entries) if entries.len() == 1 => (entries[0].key.as_str(), Some(&entries[0])),
            _ => return self.expected(&format!("one of {}", any_of(kinds))),
        };
        if !kinds.contains(&word) {
            let meant = nearest(word, kinds.iter().copied()).map_or(String::new(), |n| format!("\ndid you mean `{n}`?"));
            return Err(self.stop(format!("`{word}` is not known here\nallowed: {}{meant}", any_of(kinds))));
        }
        let kind = Kind { word, at: At { node: self.node, path: self.path.clone(), state: self.state }, inside };
        Self::locate(&self.path, visitor.visit_enum(kind))
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_unit()
    }
}

fn unknown(block: &Path, path: Path, key: &str, keys: &[&str]) -> Wrong {
    let hint = elsewhere(key);
    let near = nearest(key, keys.iter().copied()).filter(|_| hint.is_empty());
    let hint = near.map_or(hint, |n| format!("\ndid you mean `{n}`?"));
    let message = format!("unknown key `{key}`\nallowed: {}{hint}", keys.join(", "));
    Wrong { path, key: true, message, meant: near.map(|n| block.key(n)) }
}

/// Words that other proxies use for what has another name or place here.
fn elsewhere(key: &str) -> String {
    let hint = match key {
        "timeout" | "request_timeout" | "proxy_read_timeout" => {
            "`deadline` (the whole request) or `attempt_timeout` (one attempt), in a route"
        }
        "retries" | "num_retries" => "`retry: {attempts: 3}`, in a route",
        "upstreams" | "backends" | "clusters" => "`services:`, at the top of the file",
        "servers" | "hosts" | "targets" => "`endpoints:`, in a pool",
        "port" | "listen" | "bind" => "`listeners: [{address: 0.0.0.0:8080}]`",
        "healthcheck" | "health_check" | "check" => "`health:`, in a service",
        "dns" | "hostname" => "`dns:`, in a pool",
        "prefix" => "`path_prefix:`, in `match:`",
        _ => return String::new(),
    };
    format!("\nwhat other proxies call `{key}` is {hint}")
}

struct Items<'a> {
    items: std::vec::IntoIter<(Path, &'a Node)>,
    state: &'a State,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Stop;
    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let Some((path, node)) = self.items.next() else { return Ok(None) };
        At::locate(&path, seed.deserialize(At { node, path: path.clone(), state: self.state }).map(Some))
    }
}

struct Entries<'a> {
    entries: std::vec::IntoIter<(Path, &'a Entry)>,
    value: Option<(Path, &'a Entry)>,
    state: &'a State,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Stop;
    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        self.value = self.entries.next();
        let Some((_, entry)) = &self.value else { return Ok(None) };
        seed.deserialize(de::value::StrDeserializer::new(&entry.key)).map(Some)
    }
    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let (path, entry) = self.value.take().ok_or_else(|| de::Error::custom("a value without a key"))?;
        At::locate(&path, seed.deserialize(At { node: &entry.node, path: path.clone(), state: self.state }))
    }
}

struct Kind<'a> {
    word: &'a str,
    at: At<'a>,
    inside: Option<&'a Entry>,
}

impl<'de, 'a> de::EnumAccess<'de> for Kind<'a> {
    type Error = Stop;
    type Variant = Self;
    fn variant_seed<V: de::DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Stop> {
        let value = seed.deserialize(de::value::StrDeserializer::<Stop>::new(self.word))?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Kind<'_> {
    type Error = Stop;
    fn unit_variant(self) -> Result<(), Stop> {
        match self.inside {
            Some(_) => Err(self.at.stop(format!("`{0}` takes no settings\nwrite just `{0}`", self.word))),
            None => Ok(()),
        }
    }
    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Stop> {
        let Some(entry) = self.inside else {
            return Err(self.at.stop(format!("`{0}` needs its settings\nwrite `{0}: {{}}` for the defaults, or give a value", self.word)));
        };
        let path = self.at.path.key(&entry.key);
        At::locate(&path, seed.deserialize(At { node: &entry.node, path: path.clone(), state: self.at.state }))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Stop> {
        Err(self.at.stop("not a list".into()))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Stop> {
        Err(self.at.stop("not a block".into()))
    }
}

#[cfg(test)]
mod tests;
