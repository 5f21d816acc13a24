//! YAML as a tree that knows where everything stands in the file. Anchors, aliases and merge keys (`<<: *name`)
//! are resolved here; duplicate keys are found here, because nobody behind could see them any more.
//!
//! Everything that is wrong with the syntax stops the reading (a YAML parser cannot go on), but wrong indentation by
//! tabs, the usual cause, is told for every line.

use super::problem::{Path, Place, Seg};
use granit_parser::{Event, Marker, Parser, ScalarStyle, Span};
use std::collections::HashMap;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it begins.
    pub place: Place,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Text, a number, `true`, `null`.
    Scalar {
        /// As read.
        text: String,
        /// Written without quotes: may be a number, a boolean or null.
        plain: bool,
    },
    /// Items.
    List(Vec<Node>),
    /// Keys with values, in file order.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// Something wrong with the text, before any meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Flaw {
    /// Where.
    pub place: Place,
    /// The key path, where there is one.
    pub path: Path,
    /// What; further lines are notes.
    pub message: String,
}

/// Aliases multiply; a file of a few lines must not become gigabytes ("billion laughs").
const MAX_NODES: usize = 500_000;

impl Node {
    /// Whether it is `null`, `~` or nothing at all.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
    /// The entry of a block.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }
    /// The keys of a block.
    pub fn keys(&self) -> Vec<&str> {
        match &self.value {
            Value::Map(entries) => entries.iter().map(|e| e.key.as_str()).collect(),
            _ => vec![],
        }
    }
    /// The value at a path.
    pub fn find(&self, path: &Path) -> Option<&Node> {
        path.0.iter().try_fold(self, |node, seg| match (seg, &node.value) {
            (Seg::Key(k), Value::Map(_)) => node.entry(k).map(|e| &e.node),
            (Seg::At(i), Value::List(items)) => items.get(*i),
            _ => None,
        })
    }
    /// Everything that a pattern matches: `routes.[].degrade.[]`, `services.*.pools.*`; empty: the root.
    pub fn all(&self, pattern: &str) -> Vec<(Path, &Node)> {
        let mut found = vec![(Path::default(), self)];
        for part in pattern.split('.').filter(|p| !p.is_empty()) {
            found = found
                .into_iter()
                .flat_map(|(path, node)| -> Vec<(Path, &Node)> {
                    match &node.value {
                        Value::List(items) if part == "[]" => items.iter().enumerate().map(|(i, n)| (path.at(i), n)).collect(),
                        Value::Map(entries) if part != "[]" => {
                            let fits = entries.iter().filter(|e| part == "*" || e.key == part);
                            fits.map(|e| (path.key(&e.key), &e.node)).collect()
                        }
                        _ => vec![],
                    }
                })
                .collect();
        }
        found
    }
    /// Whether there is something to point at, all of it on this line.
    fn on_line(&self, line: usize) -> bool {
        let whole = matches!(self.value, Value::Scalar { .. }) || self.place.width > 1;
        whole && self.place.line == line && !self.is_null()
    }
    /// Where to show a node that stands alone: a block in a list is known by its first line.
    fn shown(&self) -> Place {
        match &self.value {
            Value::Map(entries) if self.place.width == 1 => entries.first().map_or(self.place, |e| {
                let end = e.node.place.column + e.node.place.width;
                let same = e.node.place.line == e.place.line && e.node.place.column > e.place.column;
                Place { width: if same { end - e.place.column } else { e.place.width }, ..e.place }
            }),
            _ => self.place,
        }
    }
    /// Where a problem with the value at this path is to be shown: at the value where it stands on its key's line, else at
    /// the key; where there is no such value, at the nearest thing around it.
    pub fn place(&self, path: &Path) -> Option<Place> {
        let (mut node, mut place) = (self, None);
        for seg in &path.0 {
            let (next, at) = match (seg, &node.value) {
                (Seg::Key(k), Value::Map(_)) => match node.entry(k) {
                    Some(e) if e.node.on_line(e.place.line) => (&e.node, e.node.place),
                    Some(e) => (&e.node, e.place),
                    None => break,
                },
                (Seg::At(i), Value::List(items)) => match items.get(*i) {
                    Some(n) => (n, n.shown()),
                    None => break,
                },
                _ => break,
            };
            (node, place) = (next, Some(at));
        }
        place
    }
    /// Where the key at this path stands.
    pub fn key_place(&self, path: &Path) -> Option<Place> {
        let (last, front) = path.0.split_last()?;
        match last {
            Seg::Key(k) => self.find(&Path(front.to_vec()))?.entry(k).map(|e| e.place),
            Seg::At(_) => self.place(path),
        }
    }
}

/// Reads a text. `Err`: the flaws that keep it from being read at all; beside the tree stand those that do not.
pub fn parse(text: &str) -> Result<(Node, Vec<Flaw>), Vec<Flaw>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), flaws: vec![], nodes: 0 };
    match reader.document() {
        Ok(node) => Ok((node, reader.flaws)),
        Err(flaw) => {
            let tabs = tabs(text);
            Err(if tabs.is_empty() { vec![flaw] } else { tabs })
        }
    }
}

/// Every line whose indentation holds a tab.
fn tabs(text: &str) -> Vec<Flaw> {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    text.lines()
        .enumerate()
        .filter(|(_, line)| line[..indent(line)].contains('\t') && !line.trim().is_empty())
        .map(|(i, line)| Flaw {
            place: Place { line: i + 1, column: line.find('\t').unwrap_or(0) + 1, width: 1 },
            path: Path::default(),
            message: "a tab in the indentation\nallowed: blanks only; YAML forbids tabs there\nto fix all of them: expand -t 2 FILE".into(),
        })
        .collect()
}

struct Reader<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    flaws: Vec<Flaw>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Flaw> {
        loop {
            match self.events.next_event() {
                None => return Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
                Some(Ok((Event::Comment(..) | Event::StreamStart | Event::DocumentStart(..), _))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(e)) => {
                    return Err(Flaw {
                        place: Place { line: e.marker().line().max(1), column: e.marker().col() + 1, width: 1 },
                        path: Path::default(),
                        message: format!(
                            "not valid YAML: {}\nlook at this line and the one before it: indentation, a missing colon, quote or bracket",
                            e.info()
                        ),
                    });
                }
            }
        }
    }

    fn document(&mut self) -> Result<Node, Flaw> {
        let (event, span) = self.next()?;
        if matches!(event, Event::StreamEnd) {
            let place = Place { line: 1, column: 1, width: 1 };
            return Ok(Node { value: Value::Scalar { text: String::new(), plain: true }, place });
        }
        let root = self.node(event, span, &Path::default())?;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentEnd, _) => {}
                (_, span) => {
                    return Err(Flaw {
                        place: place(span, span),
                        path: Path::default(),
                        message: "a second YAML document begins here\nallowed: one document per file; take the line `---` out".into(),
                    });
                }
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, path: &Path) -> Result<Node, Flaw> {
        self.grow(1, span, path)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                (Node { value, place: place(span, span) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = vec![];
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break (Node { value: Value::List(items), place: place(span, end) }, anchor),
                        (event, at) => {
                            let path = path.at(items.len());
                            items.push(self.node(event, at, &path)?);
                        }
                    }
                }
            }
            Event::MappingStart(_, anchor, _) => (self.map(span, path)?, anchor),
            Event::Alias(id) => {
                let mut node = self.anchors.get(&id).cloned().ok_or_else(|| flaw(span, path, "an alias inside its own anchor"))?;
                self.grow(count(&node), span, path)?;
                // A problem with a scalar is shown where it is used; inside a block, where it was written.
                if matches!(node.value, Value::Scalar { .. }) {
                    node.place = place(span, span);
                }
                return Ok(node);
            }
            _ => return Err(flaw(span, path, "not valid YAML: something else than a value stands here")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn map(&mut self, start: Span, path: &Path) -> Result<Node, Flaw> {
        let (mut entries, mut merged): (Vec<Entry>, Vec<Entry>) = (vec![], vec![]);
        let end = loop {
            let (event, at) = self.next()?;
            let key = match event {
                Event::MappingEnd => break at,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(flaw(at, path, "a key must be plain text\nin `{…}` and `[…]` quote what has a brace or a bracket in it")),
            };
            let (event, value_at) = self.next()?;
            let path = path.key(&key);
            let node = self.node(event, value_at, &path)?;
            let key_place = place(at, at);
            if key == "<<" {
                merged.extend(merge(node).map_err(|why| Flaw { place: key_place, path, message: why.into() })?);
            } else if let Some(first) = entries.iter().find(|e| e.key == key) {
                self.flaws.push(Flaw {
                    place: key_place,
                    path,
                    message: format!("`{key}` is here twice\nthe first stands in line {}; keep one of them", first.place.line),
                });
            } else {
                entries.push(Entry { key, place: key_place, node });
            }
        };
        for entry in merged {
            if entries.iter().all(|e| e.key != entry.key) {
                entries.push(entry);
            }
        }
        Ok(Node { value: Value::Map(entries), place: place(start, end) })
    }

    fn grow(&mut self, by: usize, span: Span, path: &Path) -> Result<(), Flaw> {
        self.nodes += by;
        if self.nodes > MAX_NODES {
            return Err(flaw(span, path, "more than 500,000 values\nanchors that refer to anchors multiply"));
        }
        Ok(())
    }
}

fn merge(node: Node) -> Result<Vec<Entry>, &'static str> {
    const WRONG: &str = "`<<` merges blocks only\nallowed: <<: *name, or <<: [*one, *two], where the anchors name blocks of keys";
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => items.into_iter().try_fold(vec![], |mut all, item| match item.value {
            Value::Map(entries) => {
                all.extend(entries);
                Ok(all)
            }
            _ => Err(WRONG),
        }),
        Value::Scalar { .. } => Err(WRONG),
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|e| count(&e.node)).sum(),
    }
}

fn flaw(span: Span, path: &Path, message: &str) -> Flaw {
    Flaw { place: place(span, span), path: path.clone(), message: message.into() }
}

fn place(start: Span, end: Span) -> Place {
    let (from, to) = (start.start, end.end);
    let width = if from.line() == to.line() { to.col().saturating_sub(from.col()).max(1) } else { 1 };
    Place { line: from.line().max(1), column: from.col() + 1, width }
}

#[cfg(test)]
mod tests;
